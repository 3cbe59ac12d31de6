"""The public pipelines, one folder each below `pipelines/`."""

from pathlib import Path

from kedro.framework.project import find_pipelines, settings
from kedro.pipeline import Pipeline

from tikmix_pipeline.run import has_current_run
from tikmix_pipeline.session.run_hooks import start_run

_PROJECT = Path(__file__).resolve().parents[2]


def register_pipelines() -> dict[str, Pipeline]:
    """Find the pipelines; `tikmix` is the default.

    Where no session has begun (`kedro viz`, `kedro registry`, notebooks), they are of the project's own configuration.
    """
    if not has_current_run():
        loader = settings.CONFIG_LOADER_CLASS(str(_PROJECT / settings.CONF_SOURCE), **settings.CONFIG_LOADER_ARGS)
        start_run(loader, _PROJECT)
    pipelines = find_pipelines(raise_errors=True)
    pipelines["__default__"] = pipelines.get("tikmix", Pipeline([]))
    return pipelines
