"""`extracts`: a JSON object of encyclopedia entries; title, empty line, extract."""

from collections.abc import Iterator

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.records import json_object, text_of
from tikmix_pipeline.corpus.text import tidy

_MIN_CHARACTERS = 100


def read_extracts(files: Files, _field: str | None) -> Iterator[str]:
    """Read the entries that are more than stubs."""
    for name, data in files:
        for key, entry in json_object(data, name).items():
            extract = text_of(entry, "extract", f"{name}, entry {key!r}")
            if len(extract) > _MIN_CHARACTERS:
                yield tidy(f"{entry.get('title', key)}\n\n{extract}")
