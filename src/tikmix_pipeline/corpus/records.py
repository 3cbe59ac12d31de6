"""Records: JSON objects with named fields, as the lines or the whole of a file."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tikmix_pipeline.corpus.text import naming
from tikmix_pipeline.errors import TikmixError

Record = tuple[str, Any]
"""Where the record stands, for error messages, and the record."""

LONGEST_LINE_BYTES = 1 << 28
"""A longer line is no record, but a file of another format."""


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


def read_json_lines(lines: Iterable[bytes], where: str) -> Iterator[Record]:
    """Yield ("file, line n", record) of every line that is not empty; lines may come from a stream of any size."""
    offset = 0
    for number, line in enumerate(lines, start=1):
        place = f"{where}, line {number}"
        if line.strip():
            yield place, parse_json_line(line, place, offset)
        offset += len(line)


def parse_json_line(line: bytes, place: str, offset: int) -> Any:
    """Return the record of one line.

    Args:
        line: not of white space alone.
        place: what it is called in errors.
        offset: the byte of the text that it begins at.

    Raises:
        TikmixError: the line is not UTF-8, or not JSON.
    """
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise TikmixError(
            f"{place} is not UTF-8: byte {offset + error.start} of the text is 0x{line[error.start]:02x}. "
            "Convert the file to UTF-8."
        ) from error
    except ValueError as error:
        raise TikmixError(f"{place} is not valid JSON: {error}.") from error


def too_long(place: str) -> TikmixError:
    """Return the error for a line of more than `LONGEST_LINE_BYTES`."""
    return TikmixError(
        f"{place} has more than {LONGEST_LINE_BYTES >> 20} MiB: it is no line of JSON lines. Write one record per line."
    )


def json_object(data: bytes, name: str) -> dict[str, Any]:
    """Parse a file that holds one JSON object."""
    with naming(name):
        value = json.loads(data.decode("utf-8"))
    if not isinstance(value, dict):
        raise TikmixError(f"{name}: expected a JSON object, found {type(value).__name__}.")
    return value
