"""`factbook`: a JSON object per country, of sections of named facts, each `{"text": ...}` with more of them below."""

from collections.abc import Iterator
from typing import Any

from tikmix_pipeline.corpus.readers.html import text_of_html
from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.records import json_object
from tikmix_pipeline.corpus.text import tidy


def read_factbook(files: Files, _field: str | None) -> Iterator[str]:
    """Write every country out: sections as headings, a line per fact."""
    for name, data in files:
        yield tidy("\n".join(_lines(json_object(data, name))))


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    for key, value in facts.items():
        if isinstance(value, str):
            yield f"{key}: {text_of_html(value).strip()}"
        elif isinstance(value, dict):
            text = value.get("text")
            yield f"{key}: {text_of_html(text).strip()}" if isinstance(text, str) else f"\n{key}"
            yield from _lines({name: fact for name, fact in value.items() if name != "text"})
