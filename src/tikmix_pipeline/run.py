"""A run as a value: what it was told, where it stands, and how many rounds it has.

Kedro builds pipelines without arguments. The session makes a run the current one before Kedro asks for the pipelines,
and each `create_pipeline` asks for it, once; everything below is handed the run.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import RunParameters

FOLDERS = ("experiment", "corpus")
"""What names the folders that a run reads and writes; `${folder:experiment}` in the catalog."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run of an experiment.

    Attributes:
        parameters: all parameters, typed.
        catalog: the catalog's configuration, with placeholders for the folders (`placeholder`).
        root: the project's folder, which relative paths start from.
        find_round: finds the round that a stage acts on (`plan.next_round`).
        environment: whose configuration was read; None for the default one.
        overrides: what the command line set, nested like the parameters.
        earlier: the earlier rounds that decisions average over; None stands for all.
    """

    parameters: RunParameters
    catalog: Mapping[str, Any]
    root: Path
    find_round: Callable[["Run", str], int]
    environment: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    earlier: tuple[int, ...] | None = None

    @property
    def rounds(self) -> int:
        """How many rounds the DAG has: enough for the loop and for a single stage's `round`."""
        return max(self.parameters.tikmix.rounds, (self.parameters.round or 0) + 1)

    def round_of(self, stage: str) -> int:
        """Return the round that a single stage acts on: the one named, or the first in which it is still to be done."""
        return self.find_round(self, stage) if self.parameters.round is None else self.parameters.round

    def averaged_rounds(self, number: int) -> list[int]:
        """Return the rounds whose measurements the decision of round `number` rests on, its own last."""
        return [*(range(number) if self.earlier is None else self.earlier), number]

    def with_parameters(self, parameters: RunParameters, **changes: Any) -> "Run":
        """Return a run of the same project that is told other things."""
        return replace(self, parameters=parameters, **changes)

    def path(self, name: str) -> Path:
        """Return where the catalog keeps a dataset."""
        return self.root / str(self._entry(name)["filepath"])

    def load(self, name: str) -> Any:
        """Load an artifact as it is on disk, whatever it was made from."""
        from kedro.io import AbstractDataset

        dataset: Any = AbstractDataset.from_config(name, {**self._entry(name), "filepath": str(self.path(name))})
        return dataset.load()

    def _entry(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = self._resolver.resolve_pattern(name)
        return entry

    @functools.cached_property
    def _resolver(self) -> Any:
        from kedro.io import CatalogConfigResolver

        catalog = with_folders(self.catalog, self.parameters.experiment, self.parameters.corpus.name)
        return CatalogConfigResolver(catalog, default_runtime_patterns={})


_current: Run | None = None


def set_current_run(run: Run | None) -> None:
    """Make a run the current one; the session's hook and the registry of pipelines do this, and nothing else."""
    global _current  # noqa: PLW0603
    _current = run


def current_run() -> Run:
    """Return the run that Kedro builds pipelines for; only `create_pipeline` functions ask.

    Raises:
        RuntimeError: there is none.
    """
    if _current is None:
        raise RuntimeError("no run is current: pipelines are built by Kedro, through the registry of pipelines")
    return _current


def has_current_run() -> bool:
    """Tell whether a session has made a run the current one."""
    return _current is not None


def placeholder(kind: str) -> str:
    """Resolve `${folder:experiment}` and `${folder:corpus}` to what `with_folders` replaces."""
    if kind not in FOLDERS:
        raise ValueError(f"${{folder:{kind}}}: there are {', '.join(FOLDERS)}")
    return f"<{kind}>"


def with_folders(catalog: Mapping[str, Any], experiment: str, corpus: str) -> dict[str, Any]:
    """Return a catalog's configuration with the names of the folders in the place of their placeholders."""

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(placeholder("experiment"), experiment).replace(placeholder("corpus"), corpus)
        if isinstance(value, Mapping):
            return {key: filled(inner) for key, inner in value.items()}
        return [filled(inner) for inner in value] if isinstance(value, list) else value

    return {name: filled(entry) for name, entry in catalog.items()}
