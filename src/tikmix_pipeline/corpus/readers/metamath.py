r"""`metamath`: databases of formal proofs, cut at the comments `$( #*#*` and `$( =-=-` that head their sections."""

import re
from collections.abc import Iterator

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import naming, slices

_MIN_CHARACTERS = 300
_MAX_CHARACTERS = 60_000
_SECTION = re.compile(r"^(?=\$\(\s*\n\s*(?:#\*#\*|=-=-))", re.MULTILINE)
_COMMENT = re.compile(r"\$\(.*?\$\)", re.DOTALL)
_STATEMENT = re.compile(r"\$[ap]\s")


def read_metamath(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a section, several of a long one.

    Sections without an axiom or a theorem go: among them the list of renames, the first half megabyte of `set.mm`.
    """
    for name, data in files:
        with naming(name):
            text = data.decode("utf-8")
        for section in _SECTION.split(text):
            if len(section) > _MIN_CHARACTERS and _STATEMENT.search(_COMMENT.sub("", section)):
                yield from slices(section, _MAX_CHARACTERS)
