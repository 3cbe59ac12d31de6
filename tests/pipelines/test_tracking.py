"""What MLflow holds after a run."""

from pathlib import Path

import mlflow
import pytest

from tests.pipelines.conftest import run_in


def runs_of(project: Path, experiment: str) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    store = client.get_experiment_by_name("tikmix")
    assert store is not None
    return list(client.search_runs([store.experiment_id], f"tags.experiment = '{experiment}'"))


def parent_of(project: Path, experiment: str) -> mlflow.entities.Run:
    parents = [run for run in runs_of(project, experiment) if "mlflow.parentRunId" not in run.data.tags]
    return parents[-1]


def test_run_has_a_child_per_round(finished_project: Path) -> None:
    parent = parent_of(finished_project, "one")
    children = [
        r for r in runs_of(finished_project, "one") if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    assert {child.data.tags["round"] for child in children} >= {"0", "1"}
    assert parent.info.status == "FINISHED"
    assert all(child.info.status == "FINISHED" for child in children)


def test_all_parameters_are_logged_flat(finished_project: Path) -> None:
    params = parent_of(finished_project, "one").data.params
    assert params["optimize.entropy"] == "1.0"
    assert params["tikmix.rounds"] == "2"
    assert params["train.chunk_tokens"] == "768"
    assert params["train.beta2"] == "0.95"


def test_metrics_have_one_value_per_round(finished_project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished_project}/mlflow.db")
    run_id = parent_of(finished_project, "one").info.run_id
    for key, steps in {
        "bpb/quiz": [0, 1],
        "bpb/code": [0, 1],
        "mixture/verse": [0, 1, 2],
        "influence/riddle/prose": [0, 1],
        "loss/train": list(range(1, 13)),
    }.items():
        assert [metric.step for metric in client.get_metric_history(run_id, key)] == steps, key


def test_overrides_version_and_corpus_are_recorded(finished_project: Path) -> None:
    run_in(finished_project, experiment="tagged", optimize={"entropy": 0.5})
    run = parent_of(finished_project, "tagged")
    assert run.data.tags["override.optimize.entropy"] == "0.5"
    assert run.data.tags["version"]
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {"code", "prose", "verse"}
    assert all(len(entry.dataset.digest) == 32 for entry in run.inputs.dataset_inputs)


def test_figures_are_artifacts(finished_project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished_project}/mlflow.db")
    names = {file.path for file in client.list_artifacts(parent_of(finished_project, "one").info.run_id, "figures")}
    assert {"figures/mixture.png", "figures/bits_per_byte.png", "figures/round_1_influence.png"} <= names


def test_run_that_reuses_everything_can_still_be_compared_whole(project: Path) -> None:
    run_in(project)
    newest = max(
        (run for run in runs_of(project, "one") if "mlflow.parentRunId" not in run.data.tags),
        key=lambda run: run.info.start_time,
    )
    assert {"bpb/quiz", "mixture/code", "influence/quiz/code", "final_bpb/quiz"} <= newest.data.metrics.keys()


def test_failed_run_is_marked_failed(project: Path) -> None:
    with pytest.raises(Exception, match="diverged"):
        run_in(project, experiment="wild", train={"learning_rate": 1e20, "warmup_tokens": 0})
    assert {run.info.status for run in runs_of(project, "wild")} == {"FAILED"}
