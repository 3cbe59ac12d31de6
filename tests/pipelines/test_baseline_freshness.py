"""What a baseline's decision, and the trainings it keeps, depend on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tikmix_pipeline.pipelines.branches import branch_code, code_key, relevant_to_branches

from tikmix_pipeline.baselines import doremi as doremi_module
from tikmix_pipeline.baselines.baseline import Baseline
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.pipelines.optimize import baselines
from tikmix_pipeline.store.code import code_of

FILES = {"sources": [{"kind": "files", "path": "texts.jsonl"}]}
CORPUS = {"domains": {"code": FILES}, "tasks": {"quiz": FILES}}


def relevant(strategy: str, **influence: Any) -> Any:
    parameters = RunParameters.model_validate({"corpus": CORPUS, "influence": influence})
    node: Any = baselines.DECIDED_BY[strategy][0]
    return node.relevant(parameters, 0, Path())


CHANGES = [{"tokens": 64}, {"items_per_task": 7}, {"micro_batches": 2}]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("targets", ["heldout", "all"])
@pytest.mark.parametrize("strategy", ["ngram", "regmix"])
def test_what_says_which_heldout_text_is_scored_makes_a_decision_stale(
    strategy: str, targets: str, change: dict[str, int]
) -> None:
    assert relevant(strategy, targets=targets, **change) != relevant(strategy, targets=targets)
    assert relevant(strategy, targets="tasks", **change) == relevant(strategy, targets="tasks")


@pytest.mark.parametrize("change", [*CHANGES, {"tasks": ["quiz"]}, {"task_loss": "answer"}])
def test_doremi_which_looks_at_no_target_depends_on_none(change: dict[str, Any]) -> None:
    assert relevant("doremi", targets="all", **change) == relevant("doremi", targets="tasks")


def test_baselines_and_branches_are_scored_on_the_same_text() -> None:
    for targets in ("tasks", "heldout"):
        parameters = RunParameters.model_validate({"corpus": CORPUS, "influence": {"targets": targets}})
        assert relevant("regmix", targets=targets)["influence"] == relevant_to_branches(parameters, {})["influence"]


def test_trainings_of_doremi_are_told_apart_by_the_code_of_doremi(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of a branch, which has nothing of `baselines`, would let those of an older DoReMi pass."""
    keys = []

    def noting(*_: Any, key: str, **__: Any) -> Baseline:
        keys.append(key)
        return Baseline({"code": 1.0})

    monkeypatch.setattr(doremi_module, "doremi", noting)
    monkeypatch.setattr(baselines, "_bounds", lambda *_: None)
    nothing: Any = SimpleNamespace(begin=lambda: None, doremi=None)
    baselines.decide_by_doremi(nothing, {"weights": {}}, nothing, nothing, nothing, nothing, nothing, 0, nothing)
    assert keys == [code_key(baselines._train_by_doremi)]
    assert keys != [branch_code()]
    read = set(code_of(baselines._train_by_doremi).modules)
    assert {"baselines.doremi", "baselines.group_dro", "baselines.proxy", "lm.trainer", "corpus.stream"} <= read
    assert not {module for module in read if module.startswith("influence")}
