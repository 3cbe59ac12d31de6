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

LARGEST_TEXT_BYTES = 1 << 30
"""A larger file, or member of an archive, is no document."""

_ONE_RECORD_A_LINE = " Write one record a line, or one array of records in a file that is called .json."

_BOM = b"\xef\xbb\xbf"
_BOM_AT_LINE = re.compile("^\ufeff", re.MULTILINE)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD_BYTES = 4096
_FEWEST_BYTES = 16
PACKED = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
"""How compressed files begin, by their ending."""


class UnreadableError(TikmixError):
    """A file that cannot be read, or not to its end: what `corpus.on_unreadable` is about."""


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
            f"{where} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}."
            f"{_guess(error.object)} Convert the file to UTF-8."
        ) from error


def _guess(data: bytes) -> str:
    """Say what text that is no UTF-8 looks like, in a sentence behind another one."""
    if data.startswith(_UTF_16):
        return " It looks like UTF-16."
    packed = next((name for name, start in PACKED.items() if data.startswith(start)), None)
    return f" It looks like {packed}, and is unpacked where its name ends so." if packed else ""


def _require_no_utf_16(data: bytes, where: str) -> None:
    """Refuse UTF-16 without a mark: what is ASCII in it has a NUL for every second byte, and is valid UTF-8."""
    head = data[:_HEAD_BYTES]
    even, odd = (part.count(0) / max(1, len(part)) for part in (head[0::2], head[1::2]))
    if len(head) >= _FEWEST_BYTES and max(even, odd) > 0.5 and min(even, odd) < 0.1 and not head.startswith(_UTF_16):
        raise TikmixError(f"{where} looks like UTF-16: every second byte is NUL. Convert the file to UTF-8.")


def decode(data: bytes, where: str) -> str:
    """Decode UTF-8. What is not raises a TikmixError that names `where` it came from."""
    _require_no_utf_16(data, where)
    with naming(where):
        return data.decode("utf-8")


def decode_file(data: bytes, where: str) -> str:
    """Do the same without the marks of byte order that files begin with, at line starts too: files may be joined."""
    text = decode(data, where)
    return _BOM_AT_LINE.sub("", text) if _BOM in data else text


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

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Pass over a marked section that HTML does not know up to its `>`, as browsers do."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)

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
        hint = _ONE_RECORD_A_LINE if isinstance(record, list) else ""
        raise TikmixError(
            f"{where}: expected a JSON object with the field {field!r}, found {type(record).__name__}.{hint}"
        )
    if field not in record:
        raise TikmixError(f"{where}: {missing_field(field, list(record))}")
    if isinstance(record, _Ambiguous) and field in record.ambiguous:
        raise TikmixError(f"{where}: it has the field {field!r} more than once, with different values. Keep one.")
    text = record[field]
    if not isinstance(text, str):
        raise TikmixError(f"{where}: the field {field!r} holds {type(text).__name__}, expected text.")
    require_utf_8(text, f"{where}: the field {field!r}", "Mend or drop the record.")
    return text


def require_utf_8(text: str, what: str, remedy: str) -> None:
    """Refuse text that UTF-8 cannot write; `what` it is and the `remedy` are for the message."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TikmixError(
            f"{what} holds half a surrogate pair at character {error.start}, which UTF-8 cannot write. {remedy}"
        ) from error


def read_json_lines(lines: Iterable[bytes], where: str) -> Iterator[Record]:
    """Yield ("file, line n", record) of every line that is not empty; lines may come from a stream of any size."""
    offset = 0
    for number, line in enumerate(lines, start=1):
        place = f"{where}, line {number}"
        if not is_blank(line):
            yield place, parse_json_line(line, place, offset)
        offset += len(line)


def is_blank(line: bytes) -> bool:
    """Return whether a line is of white space alone, but for a mark of byte order."""
    return not line.removeprefix(_BOM).strip()


def parse_json_line(line: bytes, place: str, offset: int) -> Any:
    """Return the record of one line that is not blank; `offset` is the byte of the text it begins at.

    A mark of byte order in front is passed over: files that were joined have it anywhere.

    Raises:
        TikmixError: the line is not UTF-8, not JSON, or nested too deep; an `UnreadableError` where it is not JSON and
            does not end with a newline.
    """
    _require_no_utf_16(line, place)
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TikmixError(
            f"{place} is not UTF-8: byte {offset + error.start} of the text is 0x{line[error.start]:02x}."
            f"{_guess(line)} Convert the file to UTF-8."
        ) from error
    return _parsed(text, place)


def _parsed(text: str, place: str) -> Any:
    try:
        return _DECODER.decode(text.removeprefix("\ufeff"))
    except ValueError as error:  # also of integers of thousands of digits
        is_opening = text.strip() in {"{", "["}
        problem = f"{place} is not valid JSON: {error}.{_ONE_RECORD_A_LINE if is_opening else ''}"
        if text.endswith("\n"):
            raise TikmixError(problem) from error
        raise UnreadableError(f"{problem} It may have been cut off there.") from error
    except RecursionError as error:
        raise TikmixError(f"{place} holds a value that is nested too deep to be read. Leave it out.") from error


class _Ambiguous(dict[str, Any]):
    """A JSON object that gives some names more than one value: Python would keep the last of them in silence."""

    ambiguous: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    marked = _Ambiguous(record)
    marked.ambiguous = frozenset(name for name, value in pairs if value != record[name])
    return marked


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def too_large(name: str) -> TikmixError:
    """Return the error for a file of more than `LARGEST_TEXT_BYTES`."""
    return TikmixError(
        f"{name} has more than {LARGEST_TEXT_BYTES >> 20} MiB, decompressed, which is too much to be read at once: cut "
        "it into several files. Of a text file, corpus.read=sample reads parts."
    )


def too_long(place: str) -> TikmixError:
    """Return the error for a line of more than `LONGEST_LINE_BYTES`."""
    return TikmixError(
        f"{place} has more than {LONGEST_LINE_BYTES >> 20} MiB: it is no line of JSON lines. Write one record per line."
    )


def json_object(data: bytes, name: str) -> dict[str, Any]:
    """Parse a file that holds one JSON object."""
    text = decode(data, name)
    value = _parsed(text, name)
    if "\\ud" in text.lower():  # the escapes of surrogates, of which a half by itself is no text
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise TikmixError(f"{name} holds half a surrogate pair, which UTF-8 cannot write. Mend it.") from error
    if not isinstance(value, dict):
        raise TikmixError(f"{name}: expected a JSON object, found {type(value).__name__}.")
    return value
