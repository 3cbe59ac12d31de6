"""Readers: the files of a source become documents.

A reader takes (name, bytes) of one file after the other, in the order of their names, and yields documents. `READERS`
names those a `package` source may ask for. What a file turns out not to be (UTF-8, JSON) is reported with its name.
"""

import contextlib
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tikmix_pipeline.errors import TikmixError

Files = Iterable[tuple[str, bytes]]
Reader = Callable[[Files, str | None], Iterator[str]]

_MIN_EXTRACT_CHARACTERS = 100
_KJV_SLICE_CHARACTERS = 20_000
_MIN_FORTUNE_CHARACTERS = 30
_FORTUNE_GROUP_CHARACTERS = 1500
_MIN_LICENCE_CHARACTERS = 600
_MIN_CODE_CHARACTERS = 500
_RECIPE_METADATA = frozenset({"url", "source", "license", "image", "id", "lang"})
_SHORT_VALUE_CHARACTERS = 40


def tidy(text: str) -> str:
    """Normalise white space: LF line ends, no blanks before them, at most one empty line, one newline at the end."""
    text = text.replace("\r\n", "\n").replace("\u00a0", " ").replace("\0", "")
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Turn what is wrong with the bytes read in the body into an error that names `where` they came from."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise TikmixError(
            f"{where} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}. Convert the file to UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise TikmixError(f"{where} is not valid JSON: {error}.") from error


def decode_leniently(data: bytes) -> str:
    """Decode UTF-8, and as Latin-1 what is not UTF-8: for old collections of one of the two."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
    return data.decode("latin-1") if "\ufffd" in text else text


def field_of(record: Any, field: str, where: str) -> Any:
    """Return a record's field.

    Raises:
        TikmixError: the record has no such field; the message names those it has.
    """
    if not isinstance(record, dict):
        raise TikmixError(f"{where}: expected a JSON object with the field {field!r}, found {type(record).__name__}.")
    if field not in record:
        raise TikmixError(f"{where}: {missing_field(field, list(record))}")
    return record[field]


def missing_field(field: str, existing: Sequence[str]) -> str:
    """Say that a field does not exist, which ones do, and which is the nearest."""
    nearest = difflib.get_close_matches(field, existing, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"there is no field {field!r}; the fields are {', '.join(map(repr, existing)) or 'none'}.{hint}"


def text_of(record: Any, field: str, where: str) -> str:
    """Return a record's field that must be text.

    Raises:
        TikmixError: there is no such field, or it does not hold text that UTF-8 can write.
    """
    text = field_of(record, field, where)
    if not isinstance(text, str):
        raise TikmixError(f"{where}: the field {field!r} holds {type(text).__name__}, expected text.")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TikmixError(
                f"{where}: the field {field!r} holds half a surrogate pair at character {error.start}, which UTF-8 "
                "cannot write. Mend or drop the record."
            ) from error
    return text


def read_json_lines(lines: Iterable[bytes], where: str) -> Iterator[tuple[str, Any]]:
    """Yield ("file, line n", record) of every line that is not empty; lines may come from a stream of any size."""
    offset = 0
    for number, line in enumerate(lines, start=1):
        place = f"{where}, line {number}"
        if line.strip():
            try:
                record = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise TikmixError(
                    f"{place} is not UTF-8: byte {offset + error.start} of the text is 0x{line[error.start]:02x}. "
                    "Convert the file to UTF-8."
                ) from error
            except ValueError as error:
                raise TikmixError(f"{place} is not valid JSON: {error}.") from error
            yield place, record
        offset += len(line)


def _read_text(files: Files, _field: str | None) -> Iterator[str]:
    for name, data in files:
        with naming(name):
            yield tidy(data.decode("utf-8"))


def _read_code(files: Files, _field: str | None) -> Iterator[str]:
    for _, data in files:
        text = tidy(decode_leniently(data))
        if len(text) > _MIN_CODE_CHARACTERS:
            yield text


def _read_jsonl(files: Files, field: str | None) -> Iterator[str]:
    for name, data in files:
        for place, record in read_json_lines(data.splitlines(keepends=True), name):
            yield tidy(text_of(record, field or "text", place))


def _read_extracts(files: Files, _field: str | None) -> Iterator[str]:
    """Read a JSON object of encyclopedia entries: title, empty line, extract."""
    for name, data in files:
        for key, entry in _json_object(data, name).items():
            extract = text_of(entry, "extract", f"{name}, entry {key!r}")
            if len(extract) > _MIN_EXTRACT_CHARACTERS:
                yield tidy(f"{entry.get('title', key)}\n\n{extract}")


def _json_object(data: bytes, name: str) -> dict[str, Any]:
    with naming(name):
        value = json.loads(data.decode("utf-8"))
    if not isinstance(value, dict):
        raise TikmixError(f"{name}: expected a JSON object, found {type(value).__name__}.")
    return value


def _read_kjv(files: Files, _field: str | None) -> Iterator[str]:
    """Read the string literal that holds the King James Bible; words added by the translators stand in brackets."""
    for name, data in files:
        with naming(name):
            _, *literal = data.decode("utf-8").split('"""', maxsplit=2)
        if len(literal) < 2:
            raise TikmixError(f"{name}: expected a text between triple quotes.")
        text = re.sub(r"\[([^\]]*)\]", r"\1", literal[0])
        for start in range(0, len(text), _KJV_SLICE_CHARACTERS):
            yield tidy(text[start : start + _KJV_SLICE_CHARACTERS])


def _read_recipes(files: Files, _field: str | None) -> Iterator[str]:
    for name, data in files:
        for recipe in _json_object(data, name).values():
            yield tidy("\n".join(_recipe_lines(recipe)))


def _recipe_lines(recipe: dict[str, Any]) -> Iterator[str]:
    for key, value in recipe.items():
        if key in _RECIPE_METADATA or not value:
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


def _read_fortunes(files: Files, _field: str | None) -> Iterator[str]:
    """Read a fortune file: entries between lines of a percent sign, joined to documents of about a page."""
    for _, data in files:
        text = re.sub(".\x08", "", decode_leniently(data)).replace("\t", "    ").replace("\a", "")
        group: list[str] = []
        for fortune in text.split("\n%\n"):
            if len(fortune) > _MIN_FORTUNE_CHARACTERS:
                group.append(fortune)
            if sum(map(len, group)) >= _FORTUNE_GROUP_CHARACTERS:
                yield tidy("\n".join(group))
                group = []
        if group:
            yield tidy("\n".join(group))


def _read_licences(files: Files, _field: str | None) -> Iterator[str]:
    """Read licence texts below a YAML header; of those that begin alike, only the first."""
    beginnings: set[str] = set()
    for name, data in files:
        with naming(name):
            text = re.sub(r"\A---\n.*?\n---\n", "", data.decode("utf-8"), flags=re.DOTALL)
        if len(text) <= _MIN_LICENCE_CHARACTERS:
            continue
        beginning = re.sub(r"[\W_]+", "", text.lower())[:600]
        if beginning not in beginnings:
            beginnings.add(beginning)
            yield tidy(text)


READERS: dict[str, Reader] = {
    "text": _read_text,
    "code": _read_code,
    "jsonl": _read_jsonl,
    "extracts": _read_extracts,
    "kjv": _read_kjv,
    "recipes": _read_recipes,
    "fortunes": _read_fortunes,
    "licences": _read_licences,
}
