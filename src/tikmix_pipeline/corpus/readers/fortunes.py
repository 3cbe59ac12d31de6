"""`fortunes`: entries between lines of a percent sign, joined to documents of about a page."""

import re
from collections.abc import Iterator

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import decode_leniently, grouped

_MIN_CHARACTERS = 30
_GROUP_CHARACTERS = 1500


def read_fortunes(files: Files, _field: str | None) -> Iterator[str]:
    """Read fortune files; a character and a backspace, as for bold type, go."""
    for _, data in files:
        text = re.sub(".\x08", "", decode_leniently(data)).replace("\t", "    ").replace("\a", "")
        fortunes = (fortune for fortune in text.split("\n%\n") if len(fortune) > _MIN_CHARACTERS)
        yield from grouped(fortunes, _GROUP_CHARACTERS)
