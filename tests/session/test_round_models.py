"""Every round's checkpoint is a logged model of MLflow, once, with what it scored on what, and no weights."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest

from tikmix_pipeline.mixture.records import MixtureRecord
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.run import Run
from tikmix_pipeline.session.tracking import tracker as tracker_module
from tikmix_pipeline.session.tracking.store import StoreError
from tikmix_pipeline.session.tracking.tracker import Tracker
from tikmix_pipeline.store.provenance import ProvenanceRecord, write_record

SOURCES = {"sources": [{"kind": "files", "path": "none.jsonl"}]}
CORPUS = {"name": "none", "domains": {"code": SOURCES}, "tasks": {"quiz": SOURCES}}
BEST_FIRST = [{"field_name": "metrics.score/mean_of_tasks", "ascending": True}]


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with a store; its corpus has two datasets."""
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    monkeypatch.setattr(tracker_module, "dataset_inputs", lambda _: [dataset("code"), dataset("quiz", "evaluation")])
    return tmp_path


def dataset(name: str, context: str = "training") -> Any:
    tags = [mlflow.entities.InputTag("mlflow.data.context", context)]
    return mlflow.entities.DatasetInput(mlflow.entities.Dataset(name, f"digest of {name}", "local", "{}"), tags)


def checkpoint(root: Path, number: int, code: str = "as it is", experiment: str = "far.off") -> Path:
    folder = root / "data" / "06_models" / experiment / f"round_{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    write_record(folder, ProvenanceRecord("train", f"{code} {number}", {}, {}))
    return folder


def evaluation(score: float) -> pd.DataFrame:
    rows = [("quiz", "task", "answer", score, math.nan), ("code", "domain", "text", 4.0, math.nan)]
    return pd.DataFrame(rows, columns=["name", "kind", "measure", "bits_per_byte", "nats_per_item"])


def mixture(number: int) -> MixtureRecord:
    one = {"code": 1.0}
    return MixtureRecord(round=number, strategy="prior", chunk_tokens=1, weights=one, tokens={"code": 1}, epochs=one)


def opened(root: Path, experiment: str = "far.off") -> Tracker:
    parameters = check_parameters({"experiment": experiment, "corpus": CORPUS})
    return Tracker(Run(parameters, {}, root, lambda *_: 0), {})


def tracked(
    root: Path,
    scores: list[float],
    code: str = "as it is",
    register: str | None = None,
    experiment: str = "far.off",
) -> str | None:
    """Track a run of so many rounds, and return what it said of the model that it registered."""
    tracker = opened(root, experiment)
    tracker.log("corpus", SimpleNamespace(overlap_report=list))
    for number, score in enumerate(scores):
        tracker.log(f"round_{number}_mixture", mixture(number))
        tracker.log(f"round_{number}_train_log", pd.DataFrame({"step": [1], "loss": [5.0], "learning_rate": [0.1]}))
        tracker.log(f"round_{number}_checkpoint", checkpoint(root, number, code, experiment))
        tracker.log(f"round_{number}_evaluation", evaluation(score))
    told = tracker.register(register) if register else None
    tracker.close("FINISHED")
    return told


def client_of(root: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")


def models(root: Path) -> list[Any]:
    client = client_of(root)
    experiment = client.get_experiment_by_name("tikmix")
    assert experiment is not None
    return list(client.search_logged_models([experiment.experiment_id], order_by=BEST_FIRST))


def test_rounds_are_ranked_by_what_they_score_and_say_where_they_stand(root: Path) -> None:
    tracked(root, [3.0, 1.0, 2.0])
    found = models(root)
    assert [one.params["round"] for one in found] == ["1", "2", "0"]
    best = found[0]
    assert (best.name, best.tags["checkpoint"]) == ("far-off-round-1", "data/06_models/far.off/round_1")
    assert str(best.status) == "READY"
    measured = {metric.key: metric for metric in best.metrics}
    assert {"score/mean_of_tasks", "mixture/code", "bpb/quiz", "bpb/code"} <= measured.keys()
    assert {metric.step for metric in best.metrics} == {1}
    assert (measured["bpb/quiz"].dataset_name, measured["bpb/quiz"].dataset_digest) == ("quiz", "digest of quiz")
    assert measured["score/mean_of_tasks"].dataset_name is None
    assert not any(root.rglob("mlartifacts/**/model.safetensors")), "weights are not copied"


def test_a_run_that_goes_on_makes_no_second_model_and_adds_what_is_missing(root: Path) -> None:
    tracker = opened(root)
    tracker.log("round_0_checkpoint", checkpoint(root, 0))
    tracker.close("KILLED")
    tracked(root, [3.0, 1.0])
    tracked(root, [3.0, 1.0])
    found = models(root)
    assert [one.params["round"] for one in found] == ["1", "0"]
    for one in found:
        assert sum(metric.key == "score/mean_of_tasks" for metric in one.metrics) == 1
    client = client_of(root)
    runs = [client.get_run(run.info.run_id) for run in client.search_runs([found[0].experiment_id])]
    (own,) = (run for run in runs if run.info.run_id == found[0].source_run_id)
    assert [output.model_id for output in own.outputs.model_outputs] == [found[0].model_id]
    later = [one for run in runs for one in run.inputs.model_inputs if one.model_id == found[0].model_id]
    assert len(later) == 2, "the round and the run that met it again"


def test_a_checkpoint_that_was_trained_anew_is_another_and_the_old_one_is_marked(root: Path) -> None:
    tracked(root, [3.0])
    tracked(root, [2.0], code="changed")
    new, old = models(root)
    assert old.tags["overwritten"] == "true"
    assert "overwritten" not in new.tags


def test_the_best_round_is_registered_once_under_an_alias(root: Path) -> None:
    told = tracked(root, [3.0, 1.0], register="mine")
    assert told == "Registered in MLflow: round 1, 1.0000, is version 1 of mine, mine@best."
    tracked(root, [3.0, 1.0], register="mine")
    client = client_of(root)
    (version,) = client.search_model_versions("name = 'mine'")
    assert str(client.get_model_version_by_alias("mine", "best").version) == str(version.version)
    assert (version.tags["round"], version.tags["experiment"]) == ("1", "far.off")
    tracked(root, [3.0, 1.0, 0.5], register="mine")
    assert client.get_model_version_by_alias("mine", "best").tags["round"] == "2"


def test_the_alias_stays_with_what_scores_less_on_the_same_tasks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked(root, [1.0], register="mine")
    told = tracked(root, [2.0], register="mine", experiment="other")
    assert told == "Registered in MLflow: round 0, 2.0000, is version 2 of mine; mine@best is version 1, 1.0000."
    client = client_of(root)
    assert str(client.get_model_version_by_alias("mine", "best").version) == "1"
    told = tracked(root, [3.0], code="changed", register="mine")
    assert "mine@best is version 2, 2.0000" in str(told), "the checkpoint of version 1 is gone"
    monkeypatch.setattr(tracker_module, "dataset_inputs", lambda _: [dataset("code"), dataset("riddle", "evaluation")])
    assert "version 4 of mine, mine@best" in str(tracked(root, [9.0], register="mine", experiment="third"))


def test_nothing_is_registered_where_nothing_was_scored_and_a_refusal_is_a_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracked(root, [], register="mine") is None

    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("no registry here")

    monkeypatch.setattr(mlflow.MlflowClient, "search_registered_models", refuse)
    told = tracked(root, [3.0], register="mine")
    assert told == "Nothing was registered as mine (mlflow.registered_model): no registry here"


def test_a_store_without_logged_models_is_told_of_once_and_tracks_the_rest(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("404")

    monkeypatch.setattr(mlflow.MlflowClient, "create_logged_model", refuse)
    log = logging.getLogger("tikmix_pipeline.session.tracking.round_models")
    monkeypatch.setattr(log, "propagate", False)
    log.addHandler(caplog.handler)
    tracked(root, [3.0, 1.0])
    log.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.name == log.name] == [
        "The MLflow store takes no logged models (404): checkpoints of rounds are not in it."
    ]
    client = client_of(root)
    experiment = client.get_experiment_by_name("tikmix")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["score/mean_of_tasks"] for run in runs) == [1.0, 1.0, 3.0]


def test_arms_of_a_comparison_register_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = client_of(root).get_experiment_by_name("tikmix")
    assert experiment is not None
    parent = client_of(root).create_run(experiment.experiment_id).info.run_id
    monkeypatch.setenv("TIKMIX_PARENT_RUN", parent)
    assert tracked(root, [3.0], register="mine") is None
    assert not client_of(root).search_registered_models()
