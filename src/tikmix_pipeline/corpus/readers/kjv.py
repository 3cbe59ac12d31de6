"""`kjv`: the King James Bible, as a string literal in a Python file."""

import re
from collections.abc import Iterator

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import naming, slices
from tikmix_pipeline.errors import TikmixError

_SLICE_CHARACTERS = 20_000


def read_kjv(files: Files, _field: str | None) -> Iterator[str]:
    """Cut the first literal into slices; words added by the translators stand in brackets, which go."""
    for name, data in files:
        with naming(name):
            _, *literal = data.decode("utf-8").split('"""', maxsplit=2)
        if len(literal) < 2:
            raise TikmixError(f"{name}: expected a text between triple quotes.")
        yield from slices(re.sub(r"\[([^\]]*)\]", r"\1", literal[0]), _SLICE_CHARACTERS)
