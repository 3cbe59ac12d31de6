"""Plain files: `text` (UTF-8), `code` (of any age) and `jsonl` (one document a line)."""

import re
from collections.abc import Iterator

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.records import read_json_lines, text_of
from tikmix_pipeline.corpus.text import decode_leniently, naming, tidy

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
