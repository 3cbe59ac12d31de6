"""Bytes become clean text and JSON records; what they turn out not to be is reported with the name of their file."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

from tikmix_pipeline.errors import TikmixError, nearest_name

Files = Iterable[tuple[str, bytes]]
"""(name, bytes) of one file after the other, in the order of their names."""

Record = tuple[str, Any]
"""Where the record stands, for error messages, and the record."""

LONGEST_LINE_BYTES = 1 << 28
"""A longer line is no record, but a file of another format."""

_SKIPPED = frozenset({"script", "style", "head", "nav", "svg", "noscript", "footer", "form", "select", "button"})
_LISTS = frozenset({"table", "tr", "td", "th", "ul", "ol", "li", "dt", "dd"})
_BLOCKS = _LISTS | {"p", "div", "section", "blockquote", "pre", "br", "h1", "h2", "h3", "h4", "h5", "h6"}


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


def decode(data: bytes, where: str) -> str:
    """Decode UTF-8. What is not raises a TikmixError that names `where` it came from."""
    with naming(where):
        return data.decode("utf-8")


def decode_leniently(data: bytes) -> str:
    """Decode UTF-8, and as Latin-1 what is not UTF-8: for old collections of one of the two."""
    text = data.decode("utf-8", errors="replace")
    return data.decode("latin-1") if "\ufffd" in text else text


def grouped(entries: Iterable[str], characters: int) -> Iterator[str]:
    """Join successive small entries to documents of at least `characters`; the last may be shorter."""
    group: list[str] = []
    for entry in entries:
        group.append(entry)
        if sum(map(len, group)) >= characters:
            yield tidy("\n".join(group))
            group = []
    if group:
        yield tidy("\n".join(group))


def slices(text: str, characters: int) -> Iterator[str]:
    """Cut a long text into documents of `characters`, the last of them shorter."""
    for start in range(0, len(text), characters):
        yield tidy(text[start : start + characters])


def text_of_html(page: str) -> str:
    """Return the text that a reader of the page sees, a line per block, without navigation and scripts."""
    extractor = _TextExtractor()
    extractor.feed(page)
    extractor.close()
    return tidy("".join(extractor.pieces))


class _TextExtractor(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._skipped = 0
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self._enter(tag, 1)

    def handle_endtag(self, tag: str) -> None:
        self._enter(tag, -1)

    def _enter(self, tag: str, change: int) -> None:
        self._skipped = max(0, self._skipped + change * (tag in _SKIPPED))
        self._preformatted = max(0, self._preformatted + change * (tag == "pre"))
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if self._skipped:
            return
        if not self._preformatted:
            data = re.sub(r"\s+", " ", data)
            if not self.pieces or self.pieces[-1].endswith(("\n", " ")):
                data = data.removeprefix(" ")
        if data:
            self.pieces.append(data)


def missing_field(field: str, existing: Sequence[str]) -> str:
    """Say that a field does not exist, which is the nearest that does, and which ones there are."""
    return f"there is no field {field!r}.{nearest_name(field, existing)}"


def text_of(record: Any, field: str, where: str) -> str:
    """Return a record's field that must be text.

    Raises:
        TikmixError: there is no such field, or it does not hold text that UTF-8 can write.
    """
    if not isinstance(record, dict):
        raise TikmixError(f"{where}: expected a JSON object with the field {field!r}, found {type(record).__name__}.")
    if field not in record:
        raise TikmixError(f"{where}: {missing_field(field, list(record))}")
    text = record[field]
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
    """Return the record of one line, which is not of white space alone; `offset` is the byte of the text it begins at.

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
