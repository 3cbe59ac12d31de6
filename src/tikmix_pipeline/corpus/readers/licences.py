"""`licences`: licence texts below a YAML header."""

import re
from collections.abc import Iterator

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import naming, tidy

_MIN_CHARACTERS = 600
_BEGINNING_CHARACTERS = 600


def read_licences(files: Files, _field: str | None) -> Iterator[str]:
    """Read the texts that are more than a notice; of those that begin alike, only the first."""
    beginnings: set[str] = set()
    for name, data in files:
        with naming(name):
            text = re.sub(r"\A---\n.*?\n---\n", "", data.decode("utf-8"), flags=re.DOTALL)
        if len(text) <= _MIN_CHARACTERS:
            continue
        beginning = re.sub(r"[\W_]+", "", text.lower())[:_BEGINNING_CHARACTERS]
        if beginning not in beginnings:
            beginnings.add(beginning)
            yield tidy(text)
