"""`kjv`: the King James Bible, as a string literal in a Python file.

`factbook`: a JSON object per country, of sections of named facts, each `{"text": ...}` with more of them below.

`fortunes`: entries between lines of a percent sign, joined to documents of about a page.

`licences`: licence texts below a YAML header.

`metamath`: databases of formal proofs, cut at the comments `$( #*#*` and `$( =-=-` that head their sections.

`recipes`: a JSON object of recipes, each an object of lists and values.

`extracts`: a JSON object of encyclopedia entries; title, empty line, extract.

`wordnet`: the data files of WordNet; one line per set of synonyms: `breathe, respire (verb): draw air into ...`.

`dictd`: dictionaries of the DICT server, a `.index` of places in a (compressed) `.dict`.

A line of the index is a headword, an offset and a length, the numbers in base 64, most significant digit first.

`rdata`: long texts in the lazy-load file (`.rdb`) of an R package.

Such a file is a row of compressed R objects. A text is a vector of strings, one per line, each of which stands in the
serialised object as a header that ends in `00 09`, its length in four bytes and its characters.
"""

import re
import string
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from tikmix_pipeline.corpus.text import (
    Files,
    decode_leniently,
    grouped,
    json_object,
    naming,
    slices,
    text_of,
    text_of_html,
    tidy,
)
from tikmix_pipeline.errors import TikmixError

_KJV_SLICE_CHARACTERS = 20_000


def read_kjv(files: Files, _field: str | None) -> Iterator[str]:
    """Cut the first literal into slices; words added by the translators stand in brackets, which go."""
    for name, data in files:
        with naming(name):
            _, *literal = data.decode("utf-8").split('"""', maxsplit=2)
        if len(literal) < 2:
            raise TikmixError(f"{name}: expected a text between triple quotes.")
        yield from slices(re.sub(r"\[([^\]]*)\]", r"\1", literal[0]), _KJV_SLICE_CHARACTERS)


def read_factbook(files: Files, _field: str | None) -> Iterator[str]:
    """Write every country out: sections as headings, a line per fact."""
    for name, data in files:
        yield tidy("\n".join(_factbook_lines(json_object(data, name))))


def _factbook_lines(facts: dict[str, Any]) -> Iterator[str]:
    for key, value in facts.items():
        if isinstance(value, str):
            yield f"{key}: {text_of_html(value).strip()}"
        elif isinstance(value, dict):
            text = value.get("text")
            yield f"{key}: {text_of_html(text).strip()}" if isinstance(text, str) else f"\n{key}"
            yield from _factbook_lines({name: fact for name, fact in value.items() if name != "text"})


_FORTUNES_MIN_CHARACTERS = 30
_FORTUNES_GROUP_CHARACTERS = 1500


def read_fortunes(files: Files, _field: str | None) -> Iterator[str]:
    """Read fortune files; a character and a backspace, as for bold type, go."""
    for _, data in files:
        text = re.sub(".\x08", "", decode_leniently(data)).replace("\t", "    ").replace("\a", "")
        fortunes = (fortune for fortune in text.split("\n%\n") if len(fortune) > _FORTUNES_MIN_CHARACTERS)
        yield from grouped(fortunes, _FORTUNES_GROUP_CHARACTERS)


_LICENCES_MIN_CHARACTERS = 600
_BEGINNING_CHARACTERS = 600


def read_licences(files: Files, _field: str | None) -> Iterator[str]:
    """Read the texts that are more than a notice; of those that begin alike, only the first."""
    beginnings: set[str] = set()
    for name, data in files:
        with naming(name):
            text = re.sub(r"\A---\n.*?\n---\n", "", data.decode("utf-8"), flags=re.DOTALL)
        if len(text) <= _LICENCES_MIN_CHARACTERS:
            continue
        beginning = re.sub(r"[\W_]+", "", text.lower())[:_BEGINNING_CHARACTERS]
        if beginning not in beginnings:
            beginnings.add(beginning)
            yield tidy(text)


_METAMATH_MIN_CHARACTERS = 300
_METAMATH_MAX_CHARACTERS = 60_000
_SECTION = re.compile(r"^(?=\$\(\s*\n\s*(?:#\*#\*|=-=-))", re.MULTILINE)
_COMMENT = re.compile(r"\$\(.*?\$\)", re.DOTALL)
_STATEMENT = re.compile(r"\$[ap]\s")


def read_metamath(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a section, several of a long one.

    Sections without an axiom or a theorem go: among them the list of renames, the first half megabyte of `set.mm`.
    """
    for name, data in files:
        with naming(name):
            text = data.decode("utf-8")
        for section in _SECTION.split(text):
            if len(section) > _METAMATH_MIN_CHARACTERS and _STATEMENT.search(_COMMENT.sub("", section)):
                yield from slices(section, _METAMATH_MAX_CHARACTERS)


_METADATA = frozenset({"url", "source", "license", "image", "id", "lang"})
_SHORT_VALUE_CHARACTERS = 40


def read_recipes(files: Files, _field: str | None) -> Iterator[str]:
    """Write every recipe out, with its keys as headings and without its metadata."""
    for name, data in files:
        for key, recipe in json_object(data, name).items():
            if not isinstance(recipe, dict):
                raise TikmixError(
                    f"{name}, recipe {key!r}: expected a JSON object of lists and values, found "
                    f"{type(recipe).__name__}. Narrow `members`, or choose another `reader`."
                )
            yield tidy("\n".join(_recipes_lines(recipe)))


def _recipes_lines(recipe: dict[str, Any]) -> Iterator[str]:
    for key, value in recipe.items():
        if key in _METADATA or not value:
            continue
        label = key.capitalize()
        if isinstance(value, list):
            yield f"{label}:"
            yield from (f"- {item}" for item in value)
        elif key in {"title", "name"}:
            yield str(value)
        elif len(str(value)) < _SHORT_VALUE_CHARACTERS:
            yield f"{label}: {value}"
        else:
            yield f"{label}:\n{value}"


_EXTRACTS_MIN_CHARACTERS = 100


def read_extracts(files: Files, _field: str | None) -> Iterator[str]:
    """Read the entries that are more than stubs."""
    for name, data in files:
        for key, entry in json_object(data, name).items():
            extract = text_of(entry, "extract", f"{name}, entry {key!r}")
            if len(extract) > _EXTRACTS_MIN_CHARACTERS:
                yield tidy(f"{entry.get('title', key)}\n\n{extract}")


_WORDNET_GROUP_CHARACTERS = 4000
_SHOWN = 60
"""Characters of a line that a message shows."""
_PARTS_OF_SPEECH = {"adj": "adjective", "adv": "adverb"}


def read_wordnet(files: Files, _field: str | None) -> Iterator[str]:
    """Join successive sets of synonyms, which WordNet orders by kind of thing, to documents of a page or two."""
    for name, data in files:
        part = PurePosixPath(name).suffix.removeprefix(".")
        glosses = _glosses(decode_leniently(data), _PARTS_OF_SPEECH.get(part, part), name)
        yield from grouped(glosses, _WORDNET_GROUP_CHARACTERS)


def _glosses(text: str, part_of_speech: str, name: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        # two blanks: the licence at the head of the file
        if line.startswith("  ") or "|" not in line:
            continue
        fields, gloss = line.split("|", maxsplit=1)
        synonyms = _synonyms(fields.split(), f"{name}, line {number}")
        yield f"{', '.join(synonyms)} ({part_of_speech}): {gloss.strip()}"


def _synonyms(fields: Sequence[str], where: str) -> list[str]:
    """Return the words of a set: after offset, file and part of speech their number, each with a sense beside it."""
    try:
        _, _, _, count, *words = fields
        last = 2 * int(count, 16)
    except ValueError:
        raise TikmixError(
            f"{where}: expected a set of synonyms of WordNet's data files, found {' '.join(fields)[:_SHOWN]!r}. "
            "Narrow `members`, or choose another `reader`."
        ) from None
    return [word.replace("_", " ") for word in words[:last:2]]


_DICTD_GROUP_CHARACTERS = 2000
_DIGITS = {digit: value for value, digit in enumerate(string.ascii_uppercase + string.ascii_lowercase + "0123456789+/")}


def read_dictd(files: Files, _field: str | None) -> Iterator[str]:
    """Join the entries of a dictionary, in the order of its index, to documents of about a page."""
    contents = {PurePosixPath(name).name: data for name, data in files}
    indices = [name for name in contents if name.endswith(".index")]
    if not indices:
        raise TikmixError(f"expected a .index and a .dict file, found {', '.join(contents)}. Widen `members`.")
    for name in indices:
        stem = name.removesuffix(".index")
        data = contents.get(f"{stem}.dict") or contents.get(f"{stem}.dict.dz")
        if data is None:
            raise TikmixError(f"{name} comes without {stem}.dict or {stem}.dict.dz. Widen `members`.")
        entries = (decode_leniently(entry) for entry in _dictd_entries(contents[name], data, name))
        yield from grouped(entries, _DICTD_GROUP_CHARACTERS)


def _dictd_entries(index: bytes, data: bytes, name: str) -> Iterator[bytes]:
    """Yield every entry once, whatever the number of its headwords; those about the dictionary itself are left out."""
    seen: set[int] = set()
    for number, line in enumerate(index.decode("utf-8", errors="replace").splitlines(), start=1):
        word, *places = line.split("\t")[:3]
        if len(places) < 2 or not all(map(_dictd_is_number, places)):
            raise TikmixError(
                f"{name}, line {number}: expected a headword, an offset and a length in base 64 with tabs between "
                "them. Narrow `members`, or choose another `reader`."
            )
        start, length = map(_dictd_number, places)
        if start not in seen and not word.startswith("00"):
            seen.add(start)
            yield data[start : start + length]


def _dictd_is_number(digits: str) -> bool:
    return bool(digits) and all(digit in _DIGITS for digit in digits)


def _dictd_number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value


_MIN_TEXT_CHARACTERS = 100_000
_RDATA_SLICE_CHARACTERS = 8_000
_MAX_LINE_BYTES = 2000
_LENGTH_BYTES = 4
_ZLIB_HEADERS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def read_rdata(files: Files, _field: str | None) -> Iterator[str]:
    """Cut every text of a package into slices of a few pages."""
    for _, data in files:
        beginnings: set[str] = set()
        for serialised in _rdata_objects(data):
            text = "\n".join(_rdata_strings(serialised))
            beginning = text[:500]
            if len(text) > _MIN_TEXT_CHARACTERS and beginning not in beginnings:
                beginnings.add(beginning)
                yield from slices(text, _RDATA_SLICE_CHARACTERS)


def _rdata_objects(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + _LENGTH_BYTES < len(data):
        start = position + _LENGTH_BYTES
        length = int.from_bytes(data[position:start], "big")
        position += 1
        if data[start : start + 2] in _ZLIB_HEADERS:
            stream = zlib.decompressobj()
            try:
                serialised = stream.decompress(data[start:])
            except zlib.error:
                continue
            if stream.eof and len(serialised) == length:
                yield serialised
                position = len(data) - len(stream.unused_data)


def _rdata_strings(serialised: bytes) -> Iterator[str]:
    position = 0
    for header in re.finditer(rb"\x00\x09(?=....)", serialised, re.DOTALL):
        if header.start() < position:
            continue
        start = header.end() + _LENGTH_BYTES
        length = int.from_bytes(serialised[header.end() : start], "big", signed=True)
        if 0 <= length < _MAX_LINE_BYTES:
            position = start + length
            yield decode_leniently(serialised[start:position])
