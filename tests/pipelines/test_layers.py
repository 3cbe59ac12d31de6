"""The layers of the catalog follow each other: where two depend on one another, Kedro-Viz shows none."""

from pathlib import Path

import pytest
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project

from tikmix_pipeline.run import current_run
from tikmix_pipeline.session.kedro_session import TikmixSession

ORDER = ["text", "corpus", "start", *(f"round {number}" for number in range(9)), "result"]


@pytest.fixture
def layers(finished_project: Path) -> dict[str, str]:
    """The layer of every dataset of every pipeline."""
    bootstrap_project(finished_project)
    with TikmixSession.create(project_path=finished_project, env="tiny") as session:
        session.load_context()
    run = current_run()
    names = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    return {name: run._entry(name)["metadata"]["kedro-viz"]["layer"] for name in names}


def test_every_dataset_has_a_layer_and_none_depends_on_a_later_one(layers: dict[str, str]) -> None:
    assert set(layers.values()) <= set(ORDER)
    for name, pipeline in pipelines.items():
        before: dict[str, set[str]] = {}
        for node in pipeline.nodes:
            for output in node.outputs:
                before.setdefault(layers[output], set()).update(layers[one] for one in node.inputs)
        for layer, others in before.items():
            others.discard(layer)
            assert all(ORDER.index(one) < ORDER.index(layer) for one in others), (name, layer, others)
