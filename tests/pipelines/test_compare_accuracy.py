"""When accuracies by lm-eval have to be measured again."""

from pathlib import Path
from typing import Any

import pytest

from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.pipelines.cached_node import view_of
from tikmix_pipeline.pipelines.compare.pipeline import comparison_of
from tikmix_pipeline.run import Run

FILES = {"sources": [{"kind": "files", "path": "texts.jsonl"}]}
CORPUS = {"domains": {"code": FILES}, "tasks": {"quiz": FILES}}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a user's own tasks."""
    folder = tmp_path / "own"
    (folder / "data").mkdir(parents=True)
    (folder / "own.yaml").write_text("task: own\n")
    (folder / "data" / "own.jsonl").write_text("{}\n")
    return folder


def recorded(root: Path, **changes: Any) -> Any:
    harness = {"tasks": ["own"], "include_path": "own", **changes}
    parameters = RunParameters.model_validate({"corpus": CORPUS, "compare": {"harness": harness}})
    pipeline = comparison_of(Run(parameters, {}, root, lambda *_: 0))
    (node,) = (one for one in pipeline.nodes if one.short_name == "score_by_lm_eval")
    return view_of(node).recorded()


@pytest.mark.parametrize("name", ["own.yaml", "data/own.jsonl", "more.yaml"])
def test_a_change_to_the_users_tasks_makes_accuracies_stale(own: Path, name: str) -> None:
    before = recorded(own.parent)
    (own / name).write_text("task: own\nnum_fewshot: 5\n")
    assert recorded(own.parent) != before


def test_what_python_leaves_beside_the_tasks_does_not(own: Path) -> None:
    before = recorded(own.parent)
    (own / "__pycache__").mkdir()
    (own / "__pycache__" / "utils.cpython-311.pyc").write_bytes(b"compiled")
    (own / ".own.yaml.swp").write_bytes(b"open in an editor")
    assert recorded(own.parent) == before


def test_how_many_options_are_scored_at_a_time_does_not(own: Path) -> None:
    assert recorded(own.parent, batch_size=1) == recorded(own.parent)
    assert recorded(own.parent, limit=1) != recorded(own.parent)
