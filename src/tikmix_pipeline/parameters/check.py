"""Plain values become typed parameters, and what is wrong with them is told in the user's terms, all at once."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import ParameterGroup, RunParameters

Group = TypeVar("Group", bound=ParameterGroup)

_MOST_LINES = 20
_QUOTES = (
    "; YAML takes no, yes, true, null and numbers for what they mean: put names, and versions such as 1.10, into quotes"
)


def merged_parameters(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with those of `overrides` in the place of theirs."""
    merged = dict(values)
    for key, value in overrides.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merged_parameters(old, value) if both else value  # type: ignore[arg-type]
    return merged


def check_parameters(
    values: Mapping[str, Any], source_of: Callable[[Sequence[str]], str] = lambda _: ""
) -> RunParameters:
    """Turn plain values into typed parameters; `source_of` names what set the one at a path, a file for instance.

    Raises:
        TikmixError: an unknown key (the nearest valid name is offered), a missing one, or a value out of range; all of
            them are listed.
    """
    try:
        return RunParameters.model_validate(values)
    except ValidationError as error:
        raise _refused(error.errors(), source_of) from None


def check_group(name: str, group: type[Group], values: Mapping[str, Any]) -> Group:
    """Turn plain values into one group of parameters, which messages call `name`; errors are as above."""
    try:
        return group.model_validate(values)
    except ValidationError as error:
        problems = [{**problem, "loc": (name, *problem["loc"])} for problem in error.errors()]
        raise _refused(problems, lambda _: "") from None


def _refused(problems: Sequence[Mapping[str, Any]], source_of: Callable[[Sequence[str]], str]) -> TikmixError:
    lines = [_in_words(problem, source_of) for problem in problems[:_MOST_LINES]]
    rest = [f"{len(problems) - _MOST_LINES} more"] if len(problems) > _MOST_LINES else []
    return TikmixError("\n".join(["The parameters are not valid:", *(f"  - {line}" for line in [*lines, *rest])]))


def _in_words(problem: Mapping[str, Any], source_of: Callable[[Sequence[str]], str]) -> str:
    unknown, parts = problem["type"] == "extra_forbidden", problem["loc"]
    location = [*_without_tags(parts[:-1]), str(parts[-1])] if unknown else _without_tags(parts)
    path, source = ".".join(location), source_of(location)
    where = f" ({source})" if source else ""
    if not unknown:
        message = str(problem["msg"]).removeprefix("Value error, ")
        return f"{path}: {message[0].lower()}{message[1:]}{_given(problem)}{where}"
    close = difflib.get_close_matches(location[-1], _names_beside(location), n=1)
    hint = f"Did you mean '{'.'.join([*location[:-1], close[0]])}'?" if close else "See conf/base/parameters*.yml."
    return f"{path} is not a parameter{where}. {hint}"


def _given(problem: Mapping[str, Any]) -> str:
    """Quote the value that was given, unless it is the whole group that something is missing or amiss in."""
    value, kind = problem["input"], problem["type"]
    if kind == "missing" or (kind == "value_error" and isinstance(value, Mapping)):
        return ""
    quotes = _QUOTES if kind == "string_type" and isinstance(value, bool | int | float | None) else ""
    return f", got {repr(value)[:300]}{quotes}"


def _without_tags(location: tuple[str | int, ...]) -> list[str]:
    """Drop the names that pydantic gives to members of a union."""
    tags = {"package", "standard_library", "files", "huggingface", "shards"}
    return [
        str(part)
        for position, part in enumerate(location)
        if not (part in tags and position > 0 and isinstance(location[position - 1], int))
        and "[" not in str(part)
        and not str(part).startswith("constrained-")
    ]


def _names_beside(location: list[str]) -> list[str]:
    """Return the valid names at the level of a path's last part."""
    model: Any = RunParameters
    for part in location[:-1]:
        field = _fields(model).get(part) if _is_group(model) else None
        model = _group_inside(model) if field is None else field.annotation
    return sorted(_group_names(model))


def _fields(group: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in group.model_fields.items()}


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _group_inside(annotation: Any) -> Any:
    """Step into a list or dict: return the annotation of its values."""
    arguments = getattr(annotation, "__args__", ())
    return arguments[-1] if arguments else annotation


def _group_names(annotation: Any) -> set[str]:
    if _is_group(annotation):
        return set(_fields(annotation))
    return {name for part in getattr(annotation, "__args__", ()) for name in _group_names(part)}
