"""The current run: the session's, or, where nothing runs, that of the project's own configuration."""

from pathlib import Path
from typing import Any

from tikmix_pipeline.plan import next_round
from tikmix_pipeline.run import Run, has_current_run, load_run, set_current_run

_PROJECT = Path(__file__).resolve().parents[3]


def start_run(loader: Any, root: Path) -> Run:
    """Make the run that a configuration describes the current one.

    Raises:
        TikmixError: its parameters are not valid.
    """
    run = load_run(loader, root, next_round)
    set_current_run(run)
    return run


def ensure_current_run() -> None:
    """Read the project's own configuration where no session has begun (`kedro viz`, `kedro registry`, notebooks)."""
    if not has_current_run():
        from kedro.framework.project import settings

        loader = settings.CONFIG_LOADER_CLASS(str(_PROJECT / settings.CONF_SOURCE), **settings.CONFIG_LOADER_ARGS)
        start_run(loader, _PROJECT)
