r"""The readers of single packages: those of the two built-in corpora.

A package and its reader may go together: nothing but the registry in `readers.py` refers to them.
"""

import base64
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from tikmix_pipeline.corpus.text import (
    LARGEST_TEXT_BYTES,
    Files,
    decode,
    decode_leniently,
    grouped,
    json_object,
    slices,
    text_of,
    text_of_html,
    tidy,
)
from tikmix_pipeline.errors import TikmixError

_REMEDY = "Narrow `members`, or choose another `reader`."


def read_kjv(name: str, data: bytes) -> Iterator[str]:
    """Cut the King James Bible, a Python file's first string literal, into slices; brackets around added words go."""
    _, *literal = decode(data, name).split('"""', maxsplit=2)
    if len(literal) < 2:
        raise TikmixError(f"{name}: expected a text between triple quotes.")
    yield from slices(re.sub(r"\[([^\]]*)\]", r"\1", literal[0]), 20_000)


def read_fortunes(_name: str, data: bytes) -> Iterator[str]:
    """Join the entries of a fortune file, which lie between lines of a percent sign, to documents of about a page.

    A character and a backspace, as for bold type, go.
    """
    text = re.sub(".\x08", "", decode_leniently(data)).replace("\t", "    ").replace("\a", "")
    yield from grouped((fortune for fortune in text.split("\n%\n") if len(fortune) > 30), 1500)


def read_licences(files: Files) -> Iterator[str]:
    """Read texts below a YAML header that are more than a notice; of those that begin alike, only the first."""
    beginnings: set[str] = set()
    for name, data in files:
        text = re.sub(r"\A---\n.*?\n---\n", "", decode(data, name), flags=re.DOTALL)
        beginning = re.sub(r"[\W_]+", "", text.lower())[:600]
        if len(text) > 600 and beginning not in beginnings:
            beginnings.add(beginning)
            yield tidy(text)


_METAMATH_SECTION = re.compile(r"^(?=\$\(\s*\n\s*(?:#\*#\*|=-=-))", re.MULTILINE)
_METAMATH_COMMENT = re.compile(r"\$\(.*?\$\)", re.DOTALL)


def read_metamath(name: str, data: bytes) -> Iterator[str]:
    """Make one document of a section of a database of formal proofs, several of a long one.

    Sections begin with a comment `$( #*#*` or `$( =-=-`. Those without an axiom or a theorem go: among them the list of
    renames, the first half megabyte of `set.mm`.
    """
    for section in _METAMATH_SECTION.split(decode(data, name)):
        if len(section) > 300 and re.search(r"\$[ap]\s", _METAMATH_COMMENT.sub("", section)):
            yield from slices(section, 60_000)


def read_extracts(name: str, data: bytes) -> Iterator[str]:
    """Read a JSON object of encyclopedia entries that are more than stubs: title, empty line, extract."""
    for key, entry in json_object(data, name).items():
        extract = text_of(entry, "extract", f"{name}, entry {key!r}")
        if len(extract) > 100:
            yield tidy(f"{entry.get('title', key)}\n\n{extract}")


def read_factbook(name: str, data: bytes) -> Iterator[str]:
    """Write out a JSON object of a country: sections as headings, a line per fact.

    A section holds named facts, each `{"text": ...}` with more of them below.
    """
    facts = json_object(data, name)
    try:
        yield tidy("\n".join(_facts(facts)))
    except RecursionError as error:
        raise TikmixError(f"{name} holds facts that are nested too deep to be read. {_REMEDY}") from error


def _facts(facts: dict[str, Any]) -> Iterator[str]:
    for key, value in facts.items():
        if isinstance(value, str):
            yield f"{key}: {text_of_html(value).strip()}"
        elif isinstance(value, dict):
            text = value.get("text")
            yield f"{key}: {text_of_html(text).strip()}" if isinstance(text, str) else f"\n{key}"
            yield from _facts({name: fact for name, fact in value.items() if name != "text"})


def read_recipes(name: str, data: bytes) -> Iterator[str]:
    """Write out a JSON object of recipes, each with its keys as headings and without its metadata."""
    for key, recipe in json_object(data, name).items():
        if not isinstance(recipe, dict):
            raise TikmixError(
                f"{name}, recipe {key!r}: expected a JSON object of lists and values, found {type(recipe).__name__}. "
                f"{_REMEDY}"
            )
        yield tidy("\n".join(_recipe_lines(recipe)))


def _recipe_lines(recipe: dict[str, Any]) -> Iterator[str]:
    for key, value in recipe.items():
        if key in {"url", "source", "license", "image", "id", "lang"} or not value:
            continue
        if isinstance(value, list):
            yield f"{key.capitalize()}:"
            yield from (f"- {item}" for item in value)
        elif key in {"title", "name"}:
            yield str(value)
        else:
            yield f"{key.capitalize()}: {value}" if len(str(value)) < 40 else f"{key.capitalize()}:\n{value}"


def read_wordnet(name: str, data: bytes) -> Iterator[str]:
    """Join successive sets of synonyms to documents of a page or two; WordNet orders them by kind of thing.

    One line stands for a set: `breathe, respire (verb): draw air into ...`.
    """
    yield from grouped(_glosses(decode_leniently(data), name), 4000)


def _glosses(text: str, name: str) -> Iterator[str]:
    part = PurePosixPath(name).suffix.removeprefix(".")
    part = {"adj": "adjective", "adv": "adverb"}.get(part, part)
    for number, line in enumerate(text.splitlines(), start=1):
        # two blanks: the licence at the head of the file
        if not line.startswith("  ") and "|" in line:
            fields, gloss = line.split("|", maxsplit=1)
            yield f"{', '.join(_synonyms(fields.split(), f'{name}, line {number}'))} ({part}): {gloss.strip()}"


def _synonyms(fields: Sequence[str], where: str) -> list[str]:
    """Return the words of a set: after offset, file and part of speech their number, each with a sense beside it."""
    try:
        _, _, _, count, *words = fields
        return [word.replace("_", " ") for word in words[: 2 * int(count, 16) : 2]]
    except ValueError:
        raise TikmixError(
            f"{where}: expected a set of synonyms of WordNet's data files, found {' '.join(fields)[:60]!r}. {_REMEDY}"
        ) from None


def read_dictd(files: Files) -> Iterator[str]:
    """Join the entries of a dictionary of the DICT server, in the order of its index, to documents of about a page.

    A line of the `.index` is a headword, an offset into the (compressed) `.dict` and a length, the numbers in base 64,
    most significant digit first.
    """
    contents = {PurePosixPath(name).name: data for name, data in files}
    indices = [name for name in contents if name.endswith(".index")]
    if not indices:
        raise TikmixError(f"expected a .index and a .dict file, found {', '.join(contents)}. Widen `members`.")
    for name in indices:
        stem = name.removesuffix(".index")
        data = contents.get(f"{stem}.dict") or contents.get(f"{stem}.dict.dz")
        if data is None:
            raise TikmixError(f"{name} comes without {stem}.dict or {stem}.dict.dz. Widen `members`.")
        yield from grouped(map(decode_leniently, _entries(contents[name], data, name)), 2000)


def _entries(index: bytes, data: bytes, name: str) -> Iterator[bytes]:
    """Yield every entry once, whatever the number of its headwords; those about the dictionary itself are left out."""
    seen: set[int] = set()
    for number, line in enumerate(index.decode("utf-8", errors="replace").splitlines(), start=1):
        try:
            word, start, length = line.split("\t")[:3]
            first, size = _number(start), _number(length)
        except ValueError:
            raise TikmixError(
                f"{name}, line {number}: expected a headword, an offset and a length in base 64 with tabs between "
                f"them. {_REMEDY}"
            ) from None
        if first not in seen and not word.startswith("00"):
            seen.add(first)
            yield data[first : first + size]


def _number(digits: str) -> int:
    if not digits or "=" in digits:
        raise ValueError(digits)
    padded = digits.rjust(-(-len(digits) // 4) * 4, "A")
    return int.from_bytes(base64.b64decode(padded, validate=True), "big")


def read_rdata(_name: str, data: bytes) -> Iterator[str]:
    """Cut the long texts of the lazy-load file (`.rdb`) of an R package, each taken once, into slices of a few pages.

    Such a file is a row of compressed R objects. A text is a vector of strings, one per line, each of which stands in
    the serialised object as a header that ends in `00 09`, its length in four bytes and its characters.
    """
    beginnings: set[str] = set()
    for serialised in _r_objects(data):
        text = "\n".join(_r_strings(serialised))
        if len(text) > 100_000 and text[:500] not in beginnings:
            beginnings.add(text[:500])
            yield from slices(text, 8_000)


def _r_objects(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + 4 < len(data):
        start = position + 4
        length = int.from_bytes(data[position:start], "big")
        position += 1
        is_head = data[start : start + 2] in {b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"}  # of a zlib stream
        if is_head and length <= LARGEST_TEXT_BYTES:
            stream = zlib.decompressobj()
            try:
                # one byte more than there should be, and none of what a bomb holds besides
                serialised = stream.decompress(memoryview(data)[start:], length + 1)
            except zlib.error:
                continue
            if stream.eof and len(serialised) == length:
                yield serialised
                position = len(data) - len(stream.unused_data)


def _r_strings(serialised: bytes) -> Iterator[str]:
    position = 0
    for header in re.finditer(rb"\x00\x09(?=....)", serialised, re.DOTALL):
        start = header.end() + 4
        length = int.from_bytes(serialised[header.end() : start], "big", signed=True)
        if header.start() >= position and 0 <= length < 2000:
            position = start + length
            yield decode_leniently(serialised[start:position])
