"""Readers: the files of a package become documents, by what a source names as its `reader`.

Here are the readers of general formats; those of single packages are in `package_readers.py`. What a file turns out not
to be is reported with its name.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from email import message_from_bytes
from email.message import Message

from tikmix_pipeline.corpus import package_readers
from tikmix_pipeline.corpus.text import Files, decode, decode_leniently, read_json_lines, text_of, text_of_html, tidy

Reader = Callable[[Files, str | None], Iterator[str]]
"""From files, and the record's field that holds the text, to documents."""

_SHORTEST_CODE = 500
_SHORTEST_PAGE = 400
_SHORTEST_MESSAGE, _LONGEST_MESSAGE = 80, 60_000
_SHORTEST_MANUAL, _LONGEST_MANUAL = 200, 400_000

# a copyright notice in front of C-like code: near-duplicate removal cannot see that thousands of files share it
_NOTICE = re.compile(r"\s*(?:(?://[^\n]*\n)+|/\*.*?\*/)", re.DOTALL)
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")

_DROPPED = re.compile(r"""[.']\\"|\.\.|\.(?:if|ie|el|de|ds|nr|tr|so|ad|nh|hy|ft|ps|in|ll|ne|PD|RS|RE|UE|ME)\b""")
_HEADING = re.compile(r"\.(?:SH|SS|TH|Sh|Ss)\s+(.*)")
_BREAK = re.compile(r"(?:\.(?:PP|P|LP|TP|IP|HP|Pp|TQ|sp|br)\b.*)?\s*$")
_LABEL = re.compile(r'\.IP\s+("[^"]*"|\S+)')
_VERBATIM = {".nf": True, ".EX": True, ".fi": False, ".EE": False}
_TABLE = re.compile(r"^\.TS\b.*?^\.TE\b", re.DOTALL | re.MULTILINE)
_ALTERNATING = re.compile(r"\.(?:BI|BR|IB|IR|RB|RI)\s+")
_REQUEST = re.compile(r"[.'][A-Za-z]{1,2}\b\s*")
_ARGUMENT = re.compile(r'"([^"]*)"?|((?:\\.|\S)+)')
_INVISIBLE = re.compile(r"\\f(?:\(..|\[[^\]]*\]|.)|\\s[-+]?\d+|\\[&/,c:]")
_CHARACTERS = {"\\-": "-", "\\ ": " ", "\\~": " ", "\\(aq": "'", "\\(bu": "*", "\\(em": "--", "\\(en": "-"}
_CHARACTERS |= dict.fromkeys(("\\(lq", "\\(rq", "\\(dq"), '"')
_CHARACTER = re.compile("|".join(map(re.escape, _CHARACTERS)))
_OTHER_CHARACTERS = re.compile(r"\\\(..|\\\[[^\]]*\]")


def read_jsonl(files: Files, field: str | None) -> Iterator[str]:
    """Make one document of a line's field, `text` where none is named."""
    for name, data in files:
        for place, record in read_json_lines(data.splitlines(keepends=True), name):
            yield tidy(text_of(record, field or "text", place))


def read_text(name: str, data: bytes) -> Iterator[str]:
    """Make one document of a file of UTF-8."""
    yield tidy(decode(data, name))


def read_code(_name: str, data: bytes) -> Iterator[str]:
    """Make one document of a source file that is not short, without the comment of a licence at its head."""
    text = decode_leniently(data)
    notice = _NOTICE.match(text)
    if notice and "copyright" in notice[0].lower():
        text = text[notice.end() :]
    text = tidy(text)
    if len(text) > _SHORTEST_CODE:
        yield text


def read_html(_name: str, data: bytes) -> Iterator[str]:
    """Make one document of a page that is not short."""
    text = text_of_html(decode_leniently(data))
    if len(text) >= _SHORTEST_PAGE:
        yield text


def read_mail(_name: str, data: bytes) -> Iterator[str]:
    """Make one document of a message, subject and body without addresses; of several bodies, the first plain one."""
    message = message_from_bytes(data)
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    plain = next((part for part in parts if part.get_content_subtype() == "plain"), None)
    pages = (text_of_html(_payload(part)) for part in parts if part.get_content_subtype() == "html")
    body = "\n".join(pages).strip() if plain is None else _payload(plain)
    text = tidy(_ADDRESS.sub("<addr>", f"Subject: {message['subject'] or ''}\n\n{body}"))
    if body and _SHORTEST_MESSAGE <= len(text) <= _LONGEST_MESSAGE:
        yield text


def _payload(part: Message) -> str:
    content = part.get_payload(decode=True)
    return content.decode("latin-1") if isinstance(content, bytes) else ""


def read_troff(_name: str, data: bytes) -> Iterator[str]:
    """Make one document of a manual page (man or mdoc) that is more than a pointer, with lines filled to paragraphs."""
    text = tidy("\n".join(_filled_lines(decode_leniently(data))))
    if _SHORTEST_MANUAL <= len(text) <= _LONGEST_MANUAL:
        yield text


def _filled_lines(page: str) -> Iterator[str]:
    """Yield a manual page by line; a paragraph is one line, what is set verbatim keeps its own, tables go."""
    paragraph: list[str] = []
    verbatim = False
    for line in _TABLE.sub("", page).split("\n"):
        if _DROPPED.match(line):
            continue
        verbatim = _VERBATIM.get(line.strip(), verbatim)
        heading = _HEADING.match(line)
        is_break = bool(_BREAK.match(line)) or line.strip() in _VERBATIM
        if paragraph and (heading or is_break or verbatim):
            yield " ".join(paragraph)
            paragraph = []
        if heading:
            yield from ("", _without_escapes(heading[1].replace('"', "")))
        elif is_break:
            yield ""
            label = _LABEL.match(line)
            paragraph += [_without_escapes(label[1].strip('"'))] if label else []
        elif verbatim:
            yield _without_escapes(_without_request(line))
        else:
            paragraph.append(_without_escapes(_without_request(line)))
    yield " ".join(paragraph)


def _without_request(line: str) -> str:
    """Return what a request for a typeface or the like is about; the words of an alternating one join up."""
    if match := _ALTERNATING.match(line):
        return "".join(quoted or bare for quoted, bare in _ARGUMENT.findall(line[match.end() :]))
    if match := _REQUEST.match(line):
        return line[match.end() :].replace('"', "")
    return line


def _without_escapes(line: str) -> str:
    """Replace escapes by what they print."""
    line = _CHARACTER.sub(lambda match: _CHARACTERS[match[0]], _INVISIBLE.sub("", line))
    return _OTHER_CHARACTERS.sub("", line).replace("\\e", "\\")


def _each(read: Callable[[str, bytes], Iterable[str]]) -> Reader:
    """Return the reader of a format whose files stand each for itself."""
    return lambda files, _field: (text for name, data in files for text in read(name, data))


READERS: dict[str, Reader] = {
    "text": _each(read_text),
    "code": _each(read_code),
    "jsonl": read_jsonl,
    "html": _each(read_html),
    "troff": _each(read_troff),
    "mail": _each(read_mail),
    "dictd": lambda files, _field: package_readers.read_dictd(files),
    "wordnet": _each(package_readers.read_wordnet),
    "metamath": _each(package_readers.read_metamath),
    "rdata": _each(package_readers.read_rdata),
    "extracts": _each(package_readers.read_extracts),
    "factbook": _each(package_readers.read_factbook),
    "fortunes": _each(package_readers.read_fortunes),
    "kjv": _each(package_readers.read_kjv),
    "licences": lambda files, _field: package_readers.read_licences(files),
    "recipes": _each(package_readers.read_recipes),
}
"""What a source that is an archive may ask for with `reader`."""
