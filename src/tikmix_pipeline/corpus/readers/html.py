"""`html`: the readable text of web pages, by the standard library's parser."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import decode_leniently, tidy

_MIN_CHARACTERS = 400
_SKIPPED = frozenset({"script", "style", "head", "nav", "svg", "noscript", "footer", "form", "select", "button"})
_LISTS = frozenset({"table", "tr", "td", "th", "ul", "ol", "li", "dt", "dd"})
_BLOCKS = _LISTS | {"p", "div", "section", "blockquote", "pre", "br", "h1", "h2", "h3", "h4", "h5", "h6"}


def read_html(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a page that is not short."""
    for _, data in files:
        text = text_of_html(decode_leniently(data))
        if len(text) >= _MIN_CHARACTERS:
            yield text


def text_of_html(page: str) -> str:
    """Return the text that a reader of the page sees, a line per block, without navigation and scripts."""
    extractor = _TextExtractor()
    extractor.feed(page)
    extractor.close()
    return tidy("".join(extractor.parts))


class _TextExtractor(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped = 0
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self._skipped += tag in _SKIPPED
        self._preformatted += tag == "pre"
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._skipped = max(0, self._skipped - (tag in _SKIPPED))
        self._preformatted = max(0, self._preformatted - (tag == "pre"))
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._skipped:
            return
        if not self._preformatted:
            data = re.sub(r"\s+", " ", data)
            if not self.parts or self.parts[-1].endswith(("\n", " ")):
                data = data.removeprefix(" ")
        if data:
            self.parts.append(data)
