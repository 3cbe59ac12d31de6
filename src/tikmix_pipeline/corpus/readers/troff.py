"""`troff`: manual pages (man and mdoc) as text, with lines filled to paragraphs as a pager shows them."""

import re
from collections.abc import Iterator

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import decode_leniently, tidy

_MIN_CHARACTERS = 200
_MAX_CHARACTERS = 400_000

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
        text = tidy("\n".join(_lines(decode_leniently(data))))
        if _MIN_CHARACTERS <= len(text) <= _MAX_CHARACTERS:
            yield text


def _lines(page: str) -> Iterator[str]:
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
            yield from ("", _plain(heading[1].replace('"', "")))
        elif is_break:
            yield ""
            label = _LABEL.match(line)
            paragraph += [_plain(label[1].strip('"'))] if label else []
        elif verbatim:
            yield _plain(_without_request(line))
        else:
            paragraph.append(_plain(_without_request(line)))
    yield " ".join(paragraph)


def _without_request(line: str) -> str:
    """Return what a request for a typeface or the like is about; the words of an alternating one join up."""
    if match := _ALTERNATING.match(line):
        return "".join(quoted or bare for quoted, bare in _ARGUMENT.findall(line[match.end() :]))
    if match := _REQUEST.match(line):
        return line[match.end() :].replace('"', "")
    return line


def _plain(line: str) -> str:
    """Replace escapes by what they print."""
    line = _INVISIBLE.sub("", line)
    for escape, character in _CHARACTERS.items():
        line = line.replace(escape, character)
    return _OTHER_CHARACTERS.sub("", line).replace("\\e", "\\")
