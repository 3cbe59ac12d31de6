"""The annotation of a parameter as a reader says it: `number above 0, or null`."""

import json
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_KINDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "null",
    Any: "any value",
}
_MANY = {"text": "texts", "group": "groups", "any value": "values", "list of texts": "lists of texts"}
_LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def type_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return a type in words, its limits with it.

    Raises:
        TypeError: a type that has no words yet.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(parts[0], (*metadata, *parts[1:]))
    if origin is Literal:
        return _alternatives([f"`{in_yaml(value)}`" for value in parts])
    if origin in {Union, UnionType}:
        return _alternatives([*dict.fromkeys(type_words(part, metadata) for part in parts)])
    if origin in {dict, list, tuple}:
        return f"mapping of names to {_many(parts[1])}" if origin is dict else f"list of {_many(parts[0])}"
    if annotation in _KINDS:
        return _KINDS[annotation] + (_limits(metadata) if annotation in {int, float} else "")
    if groups_of(annotation):
        return "group"
    raise TypeError(f"{annotation} has no words yet: add them to {__name__}")


def in_yaml(value: Any) -> str:
    """Return a value as parameters.yml has it, on one line."""
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, BaseModel):
        return in_yaml(value.model_dump(exclude_unset=True))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {in_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(in_yaml(item) for item in value) + "]"
    return json.dumps(value)


def groups_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the groups of parameters that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [group for part in get_args(annotation) for group in groups_of(part)]


def only_value(info: FieldInfo) -> str | None:
    """Return the one value that a parameter may have, if there is only one."""
    values = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    return str(values[0]) if len(values) == 1 else None


def _many(annotation: Any) -> str:
    words = type_words(annotation)
    return _MANY.get(words, words if words.startswith("mapping") else f"({words})")


def _alternatives(words: Sequence[str]) -> str:
    if len(words) == 2 and " and " not in words[0]:
        return " or ".join(words)
    return f"{', '.join(words[:-1])}, or {words[-1]}" if words[1:] else words[0]


def _limits(metadata: Sequence[Any]) -> str:
    """Return the limits that pydantic holds a value to, as a suffix."""
    # a field of an annotation holds its limits in a list of its own
    marks = [inner for mark in metadata for inner in [mark, *getattr(mark, "metadata", ())]]
    return " and".join(
        f" {word} {getattr(mark, name):g}" for mark in marks for name, word in _LIMITS.items() if hasattr(mark, name)
    )
