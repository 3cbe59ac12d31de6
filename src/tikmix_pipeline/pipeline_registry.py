"""The public pipelines, one folder each below `pipelines/`."""

from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline

from tikmix_pipeline.session.current import ensure_current_run


def register_pipelines() -> dict[str, Pipeline]:
    """Find the pipelines; `tikmix` is the default."""
    ensure_current_run()
    pipelines = find_pipelines(raise_errors=True)
    pipelines["__default__"] = pipelines.get("tikmix", Pipeline([]))
    return pipelines
