"""The parameters of the run under way, checked, for whoever builds pipelines.

Kedro builds pipelines without arguments, yet the number of rounds and the round of a single stage come from
parameters. A hook stores them here before Kedro asks for the pipelines; where there is no run (`kedro viz`,
`kedro registry`, notebooks) the project's own configuration is read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import RunParameters

PROJECT_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, eq=False)
class RunContext:
    """What a run was told.

    Attributes:
        parameters: all parameters, typed.
        catalog: the catalog's configuration, as Kedro resolved it.
        root: the project's folder, which relative paths start from.
        environment: whose configuration was read; None for the default one.
        overrides: what the command line set, nested like the parameters.
        loader: of the configuration that all this comes from.
        recalled: earlier rounds that a decision takes into account; None stands for all.
    """

    parameters: RunParameters
    catalog: Mapping[str, Any]
    root: Path
    environment: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    loader: Mapping[str, Any] = field(default_factory=dict)
    recalled: tuple[int, ...] | None = None

    def remembered(self, number: int) -> list[int]:
        """Return the rounds whose measurements the decision of round `number` rests on, its own last."""
        return [*(range(number) if self.recalled is None else self.recalled), number]

    @property
    def rounds(self) -> int:
        """How many rounds the DAG has: enough for the loop and for a single stage's `round`."""
        return max(self.parameters.tikmix.rounds, (self.parameters.round or 0) + 1)


_current: RunContext | None = None
_folders = {"experiment": "default", "corpus": "default"}


def folder_name(kind: str) -> str:
    """Resolve `${folder:experiment}` and `${folder:corpus}` in the catalog: the folders this run reads and writes."""
    return _folders[kind]


def load_run_context(loader: Mapping[str, Any], root: Path) -> RunContext:
    """Check a project's parameters, and read its catalog with the folders that they name.

    Raises:
        TikmixError: the parameters are not valid.
    """
    parameters = check_parameters(loader["parameters"])
    _folders.update(experiment=parameters.experiment, corpus=parameters.corpus.name)
    environment, overrides = getattr(loader, "env", None), getattr(loader, "runtime_params", None)
    return RunContext(parameters, loader["catalog"], root, environment, overrides or {}, loader)


def set_run_context(context: RunContext | None) -> None:
    """Make `context` the current one."""
    global _current  # noqa: PLW0603
    _current = context


def run_context() -> RunContext:
    """Return the current run's context, or one from the project's configuration when nothing runs."""
    return _current or _context_of_project()


def beside(context: RunContext, parameters: RunParameters) -> RunContext:
    """Return the context of another experiment of the same project and corpus."""
    return replace(context, parameters=parameters, catalog=_catalog_beside(context, parameters.experiment))


@lru_cache(maxsize=256)  # a comparison asks for those of all its arms many times, and resolving one takes 0.1 s
def _catalog_beside(context: RunContext, experiment: str) -> Mapping[str, Any]:
    kept = dict(_folders)
    _folders.update(experiment=experiment)
    try:
        catalog: Mapping[str, Any] = context.loader["catalog"]
    finally:
        _folders.update(kept)
    return catalog


@contextmanager
def as_current(context: RunContext) -> Iterator[None]:
    """Build pipelines, inside, as a run with other parameters would."""
    before = _current
    set_run_context(context)
    try:
        yield
    finally:
        set_run_context(before)


def merged_parameters(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with those of `overrides` in the place of theirs."""
    merged = dict(values)
    for key, value in overrides.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merged_parameters(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _context_of_project() -> RunContext:
    from kedro.framework.project import settings

    loader = settings.CONFIG_LOADER_CLASS(str(PROJECT_ROOT / settings.CONF_SOURCE), **settings.CONFIG_LOADER_ARGS)
    return load_run_context(loader, PROJECT_ROOT)


def check_parameters(values: Mapping[str, Any]) -> RunParameters:
    """Turn plain values into typed parameters.

    Raises:
        TikmixError: an unknown key (the nearest valid name is offered), a missing one, or a value out of range; all of
            them are listed.
    """
    try:
        return RunParameters.model_validate(values)
    except ValidationError as error:
        lines = [_in_words(problem) for problem in error.errors()]
        raise TikmixError("\n".join(["The parameters are not valid:", *(f"  - {line}" for line in lines)])) from None


def _in_words(problem: Mapping[str, Any]) -> str:
    location = _without_tags(problem["loc"])
    path = ".".join(location)
    if problem["type"] != "extra_forbidden":
        return f"{path}: {problem['msg'].lower()}, got {problem['input']!r}"
    close = get_close_matches(location[-1], _names_beside(location), n=1)
    hint = f"Did you mean '{'.'.join([*location[:-1], close[0]])}'?" if close else "See conf/base/parameters*.yml."
    return f"{path} is not a parameter. {hint}"


def _without_tags(location: tuple[str | int, ...]) -> list[str]:
    """Drop the names that pydantic gives to members of a union."""
    tags = {"package", "standard_library", "files", "huggingface", "shards"}
    return [
        str(part)
        for position, part in enumerate(location)
        if not (part in tags and position > 0 and isinstance(location[position - 1], int)) and "[" not in str(part)
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
