"""`recipes`: a JSON object of recipes, each an object of lists and values."""

from collections.abc import Iterator
from typing import Any

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.records import json_object
from tikmix_pipeline.corpus.text import tidy
from tikmix_pipeline.errors import TikmixError

_METADATA = frozenset({"url", "source", "license", "image", "id", "lang"})
_SHORT_VALUE_CHARACTERS = 40


def read_recipes(files: Files, _field: str | None) -> Iterator[str]:
    """Write every recipe out, with its keys as headings and without its metadata."""
    for name, data in files:
        for key, recipe in json_object(data, name).items():
            if not isinstance(recipe, dict):
                raise TikmixError(
                    f"{name}, recipe {key!r}: expected a JSON object of lists and values, found "
                    f"{type(recipe).__name__}. Narrow `members`, or choose another `reader`."
                )
            yield tidy("\n".join(_lines(recipe)))


def _lines(recipe: dict[str, Any]) -> Iterator[str]:
    for key, value in recipe.items():
        if key in _METADATA or not value:
            continue
        label = key.capitalize()
        if isinstance(value, list):
            yield f"{label}:"
            yield from (f"- {item}" for item in value)
        elif key in {"title", "name"}:
            yield str(value)
        elif len(str(value)) < _SHORT_VALUE_CHARACTERS:
            yield f"{label}: {value}"
        else:
            yield f"{label}:\n{value}"
