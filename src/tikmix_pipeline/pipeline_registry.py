"""The public pipelines, one folder each below `pipelines/`."""

from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline


def register_pipelines() -> dict[str, Pipeline]:
    """Find every public pipeline; `tikmix` is the default."""
    pipelines: dict[str, Pipeline] = find_pipelines(raise_errors=True)
    # `kedro run --pipelines X` imports X alone, and then there is no default to name
    return {**pipelines, "__default__": pipelines.get("tikmix", Pipeline([]))}
