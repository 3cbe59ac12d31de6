"""A run is a value: folders and rounds follow from what it was told, and from nothing else."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import tikmix_pipeline
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.run import Run, current_run, placeholder, set_current_run, with_folders

SOURCE = {"sources": [{"kind": "standard_library"}]}
CATALOG = {
    "scores": {"type": "json.JSONDataset", "filepath": f"data/{placeholder('experiment')}/scores.json"},
    "round_{number}_mixture": {"type": "x", "filepath": f"data/{placeholder('corpus')}/round_{{number}}.json"},
}


def run(root: Path = Path("root"), **groups: Any) -> Run:
    corpus = {"name": "tiny", "domains": {"code": SOURCE}, "tasks": {"quiz": SOURCE}}
    return Run(check_parameters({"corpus": corpus, **groups}), CATALOG, root, lambda run, stage: len(stage))


def test_folders_are_those_of_the_experiment_and_the_corpus() -> None:
    assert run(experiment="mine").path("scores") == Path("root/data/mine/scores.json")
    assert run().path("round_3_mixture") == Path("root/data/tiny/round_3.json")


def test_another_experiment_of_the_same_project_has_its_own_folders_and_leaves_those_of_the_first() -> None:
    first = run(experiment="first")
    second = first.with_parameters(check_parameters(first.parameters.model_dump() | {"experiment": "second"}))
    assert second.path("scores") == Path("root/data/second/scores.json")
    assert first.path("scores") == Path("root/data/first/scores.json")


def test_unknown_folder_in_a_catalog_is_refused() -> None:
    with pytest.raises(ValueError, match="there are experiment, corpus"):
        placeholder("experimnt")


def test_placeholders_are_filled_wherever_they_stand() -> None:
    nested = {"a": {"b": [f"x/{placeholder('experiment')}", 3], "c": placeholder("corpus")}}
    assert with_folders(nested, "one", "two") == {"a": {"b": ["x/one", 3], "c": "two"}}


def test_stage_acts_on_the_round_that_is_named_and_else_on_the_one_that_is_found() -> None:
    assert run(round=4).round_of("influence") == 4
    assert run().round_of("influence") == len("influence")


def test_dag_reaches_as_far_as_the_loop_and_the_round_of_a_single_stage() -> None:
    assert run(tikmix={"rounds": 3}).rounds == 3
    assert run(tikmix={"rounds": 3}, round=5).rounds == 6


def test_decisions_average_over_all_rounds_so_far_unless_some_are_named() -> None:
    assert run().averaged_rounds(2) == [0, 1, 2]
    chosen = run()
    assert chosen.with_parameters(chosen.parameters, earlier=(1,)).averaged_rounds(3) == [1, 3]


def test_pipelines_cannot_be_built_before_there_is_a_run() -> None:
    set_current_run(None)
    with pytest.raises(RuntimeError, match="no run is current"):
        current_run()
    ours = run()
    set_current_run(ours)
    try:
        assert current_run() is ours
    finally:
        set_current_run(None)


def test_artifact_is_loaded_as_it_is(tmp_path: Path) -> None:
    one = run(tmp_path, experiment="mine")
    catalog = {"note": {"type": "tikmix_pipeline.datasets.TextDataset", "filepath": "<experiment>.txt"}}
    (tmp_path / "mine.txt").write_text("as it is")
    assert one.with_parameters(one.parameters, catalog=catalog).load("note") == "as it is"


def test_only_what_kedro_calls_without_arguments_asks_for_the_current_run() -> None:
    """And an arm of a comparison, which begins a session of its own."""
    asking = set()
    for path in Path(tikmix_pipeline.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and re.search(r"\bcurrent_run\(\)", ast.unparse(function.body)):
                asking.add(function.name if path.name == "pipeline.py" else f"{path.stem}.{function.name}")
    assert asking == {"create_pipeline", "run_arm._run"}
