"""What a reader takes and gives.

Plain files: `text` (UTF-8), `code` (of any age) and `jsonl` (one document a line).

`html`: the readable text of web pages, by the standard library's parser.

`mail`: messages as subject and body, without addresses.

`troff`: manual pages (man and mdoc) as text, with lines filled to paragraphs as a pager shows them.

The readers by name: what a source that is an archive may ask for with `reader`.
"""

import re
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import Message

from tikmix_pipeline.corpus.package_readers import (
    read_dictd,
    read_extracts,
    read_factbook,
    read_fortunes,
    read_kjv,
    read_licences,
    read_metamath,
    read_rdata,
    read_recipes,
    read_wordnet,
)
from tikmix_pipeline.corpus.text import Files, decode_leniently, naming, read_json_lines, text_of, text_of_html, tidy

Reader = Callable[[Files, str | None], Iterator[str]]
"""From files, and the record's field that holds the text, to documents."""


_MIN_CODE_CHARACTERS = 500

# a copyright notice in front of C-like code: near-duplicate removal cannot see that thousands of files share it
_NOTICE = re.compile(r"\s*(?:(?://[^\n]*\n)+|/\*.*?\*/)", re.DOTALL)


def read_text(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a file."""
    for name, data in files:
        with naming(name):
            yield tidy(data.decode("utf-8"))


def read_code(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a source file that is not short, without the comment of a licence at its head."""
    for _, data in files:
        text = decode_leniently(data)
        notice = _NOTICE.match(text)
        if notice and "copyright" in notice[0].lower():
            text = text[notice.end() :]
        text = tidy(text)
        if len(text) > _MIN_CODE_CHARACTERS:
            yield text


def read_jsonl(files: Files, field: str | None) -> Iterator[str]:
    """Make one document of a line's field, `text` where none is named."""
    for name, data in files:
        for place, record in read_json_lines(data.splitlines(keepends=True), name):
            yield tidy(text_of(record, field or "text", place))


_HTML_MIN_CHARACTERS = 400


def read_html(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a page that is not short."""
    for _, data in files:
        text = text_of_html(decode_leniently(data))
        if len(text) >= _HTML_MIN_CHARACTERS:
            yield text


_MAIL_MIN_CHARACTERS = 80
_MAIL_MAX_CHARACTERS = 60_000
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")


def read_mail(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a message; of several bodies, the first that is plain text."""
    for _, data in files:
        message = message_from_bytes(data)
        body = _mail_body(message)
        text = tidy(_ADDRESS.sub("<addr>", f"Subject: {message['subject'] or ''}\n\n{body}"))
        if body and _MAIL_MIN_CHARACTERS <= len(text) <= _MAIL_MAX_CHARACTERS:
            yield text


def _mail_body(message: Message) -> str:
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    for part in parts:
        if part.get_content_subtype() == "plain":
            return _mail_payload(part)
    return "\n".join(
        text_of_html(_mail_payload(part)) for part in parts if part.get_content_subtype() == "html"
    ).strip()


def _mail_payload(part: Message) -> str:
    content = part.get_payload(decode=True)
    return content.decode("latin-1") if isinstance(content, bytes) else ""


_TROFF_MIN_CHARACTERS = 200
_TROFF_MAX_CHARACTERS = 400_000

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
_CHARACTERS = {
    "\\-": "-",
    "\\(aq": "'",
    "\\(bu": "*",
    "\\(em": "--",
    "\\(en": "-",
    "\\(lq": '"',
    "\\(rq": '"',
    "\\(dq": '"',
    "\\ ": " ",
    "\\~": " ",
}
_OTHER_CHARACTERS = re.compile(r"\\\(..|\\\[[^\]]*\]")


def read_troff(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a page; those that only point to another page are short and go."""
    for _, data in files:
        text = tidy("\n".join(_troff_lines(decode_leniently(data))))
        if _TROFF_MIN_CHARACTERS <= len(text) <= _TROFF_MAX_CHARACTERS:
            yield text


def _troff_lines(page: str) -> Iterator[str]:
    """Yield the page line by line; a paragraph is one line, what is set verbatim keeps its own, tables go."""
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
            yield from ("", _troff_plain(heading[1].replace('"', "")))
        elif is_break:
            yield ""
            label = _LABEL.match(line)
            paragraph += [_troff_plain(label[1].strip('"'))] if label else []
        elif verbatim:
            yield _troff_plain(_without_request(line))
        else:
            paragraph.append(_troff_plain(_without_request(line)))
    yield " ".join(paragraph)


def _without_request(line: str) -> str:
    """Return what a request for a typeface or the like is about; the words of an alternating one join up."""
    if match := _ALTERNATING.match(line):
        return "".join(quoted or bare for quoted, bare in _ARGUMENT.findall(line[match.end() :]))
    if match := _REQUEST.match(line):
        return line[match.end() :].replace('"', "")
    return line


def _troff_plain(line: str) -> str:
    """Replace escapes by what they print."""
    line = _INVISIBLE.sub("", line)
    for escape, character in _CHARACTERS.items():
        line = line.replace(escape, character)
    return _OTHER_CHARACTERS.sub("", line).replace("\\e", "\\")


READERS: dict[str, Reader] = {
    "text": read_text,
    "code": read_code,
    "jsonl": read_jsonl,
    "html": read_html,
    "troff": read_troff,
    "mail": read_mail,
    "dictd": read_dictd,
    "wordnet": read_wordnet,
    "metamath": read_metamath,
    "rdata": read_rdata,
    "extracts": read_extracts,
    "factbook": read_factbook,
    "fortunes": read_fortunes,
    "kjv": read_kjv,
    "licences": read_licences,
    "recipes": read_recipes,
}
