"""What MLflow holds after a run."""

import getpass
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Pipeline, node
from mlflow.exceptions import MlflowException

from tests.pipelines.conftest import run_in
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.records import DecisionRecord, MixtureRecord
from tikmix_pipeline.run import current_run, set_current_run
from tikmix_pipeline.session.kedro_session import TikmixSession
from tikmix_pipeline.session.tracking.logged import code_version
from tikmix_pipeline.session.tracking_hooks import TrackingHooks


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
    assert sorted(child.data.tags["round"] for child in children) == ["0", "1"], "the last mixture is of no round"
    assert all({"mixture/code", "bpb/quiz", "loss/train"} <= child.data.metrics.keys() for child in children)
    assert parent.info.status == "FINISHED"
    assert all(child.info.status == "FINISHED" for child in children)


def test_the_parameters_of_what_ran_are_logged_flat(finished_project: Path) -> None:
    """That none is missing which counts is seen in test_staleness.py, where every parameter is changed."""
    params = parent_of(finished_project, "one").data.params
    assert {key.split(".")[0] for key in params}.isdisjoint({"sweep", "remix", "compare", "validate"})
    assert {key.split(".")[1] for key in params if key.startswith("baselines.")} <= {"ngram"}
    assert params["optimize.max_epochs"] == "4.0"
    assert params["tikmix.rounds"] == "2"
    assert params["train.chunk_tokens"] == "768"
    assert params["train.beta2"] == "0.95"


def test_seconds_of_every_node_are_one_table(finished_project: Path) -> None:
    seconds = pd.read_csv(artifact_of(finished_project, "seconds.csv")).set_index("step")["seconds"]
    assert seconds["round_1.train_chunk"] > 0
    assert seconds.index.is_unique
    metrics = parent_of(finished_project, "one").data.metrics
    assert not any(key.startswith("seconds") for key in metrics)
    assert sum("/" not in key for key in metrics) <= 12, "an overview shows what has no prefix first"


def test_metrics_have_one_value_per_round(finished_project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished_project}/mlflow.db")
    run_id = parent_of(finished_project, "one").info.run_id
    for key, steps in {
        "bpb/quiz": [0, 1],
        "bpb/code": [0, 1],
        "mixture/verse": [0, 1],
        "next_mixture/verse": [2],
        "score/mean_of_tasks": [0, 1],
        "influence/riddle/prose": [0, 1],
        "loss/train": list(range(1, 13)),
    }.items():
        assert [metric.step for metric in client.get_metric_history(run_id, key)] == steps, key


def test_a_comparison_opens_on_the_headline_and_the_run_says_what_it_is(finished_project: Path) -> None:
    run = parent_of(finished_project, "one")
    assert next(iter(run.data.metrics)) == "score/mean_of_tasks"
    assert run.data.metrics["score/mean_of_tasks"] == run.data.metrics["bpb/mean_of_tasks"]
    assert run.info.run_name == "tikmix · direct · one"
    assert run.data.tags["strategy"] == "direct"
    assert {"corpus", "model", "version"} <= run.data.tags.keys()
    client = mlflow.MlflowClient(f"sqlite:///{finished_project}/mlflow.db")
    at_root = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"mixture.png", "summary.txt"} <= at_root
    tables = {file.path for file in client.list_artifacts(run.info.run_id, "tables/round_0")}
    assert {"tables/round_0/influence.csv", "tables/round_0/influence.parquet"} <= tables


def test_overrides_version_and_corpus_are_recorded(finished_project: Path) -> None:
    run_in(finished_project, experiment="tagged", optimize={"entropy": 0.5})
    run = parent_of(finished_project, "tagged")
    assert run.data.tags["override.optimize.entropy"] == "0.5"
    assert run.data.tags["version"]
    inputs = {entry.dataset.name: entry for entry in run.inputs.dataset_inputs}
    assert {name: entry.tags[0].value for name, entry in inputs.items()} == {
        **dict.fromkeys(("code", "prose", "verse"), "training"),
        **dict.fromkeys(("quiz", "riddle"), "evaluation"),
    }
    assert len({entry.dataset.digest for entry in inputs.values()}) == 5
    assert all(len(entry.dataset.digest) == 32 for entry in inputs.values())


def test_the_checkpoint_of_every_round_is_a_model_linked_to_what_it_was_scored_on(finished_project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished_project}/mlflow.db")
    run = parent_of(finished_project, "one")
    order = [{"field_name": "metrics.score/mean_of_tasks"}]
    models = client.search_logged_models([run.info.experiment_id], "tags.experiment = 'one'", order_by=order)
    scores = [{metric.key: metric.value for metric in one.metrics}["score/mean_of_tasks"] for one in models]
    assert len(scores) == 2
    assert scores == sorted(scores)
    digests = {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs}
    linked = {metric.key: metric for one in models for metric in one.metrics if metric.dataset_name}
    assert {linked[key].dataset_digest for key in ("bpb/quiz", "final_bpb/quiz")} == {digests["quiz"]}
    assert all((finished_project / one.tags["checkpoint"] / "model.safetensors").is_file() for one in models)


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


def artifact_of(project: Path, path: str) -> Path:
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    return Path(client.download_artifacts(parent_of(project, "one").info.run_id, path))


def test_tables_are_artifacts(finished_project: Path) -> None:
    for number in (0, 1):
        influence = pd.read_parquet(artifact_of(finished_project, f"tables/round_{number}/influence.parquet"))
        assert {"task", "domain", "influence", "stderr"} <= set(influence.columns)
        assert len(pd.read_parquet(artifact_of(finished_project, f"tables/round_{number}/evaluation.parquet")))
    for number in (0, 1, 2):
        rows = pd.read_parquet(artifact_of(finished_project, f"tables/round_{number}/mixture_rows.parquet"))
        assert set(rows["round"]) == {number}
    assert len(pd.read_parquet(artifact_of(finished_project, "tables/final_evaluation.parquet")))


def test_contamination_report_is_an_artifact(finished_project: Path) -> None:
    report = artifact_of(finished_project, "corpus/overlap.json").read_text()
    assert (
        json.loads(report)
        == json.loads((finished_project / "data" / "03_primary" / "tiny" / "manifest.json").read_text())["overlap"]
    )


class Catalog:
    """A catalog that has everything, and loads it in one way."""

    def __init__(self, load: Callable[[str], Any]) -> None:
        self.load = load

    def exists(self, name: str) -> bool:
        del name
        return True


@pytest.fixture
def alone(finished_project: Path, tmp_path: Path) -> Path:
    """A folder with a store of its own, for hooks that are called by hand in the experiment `alone`."""
    bootstrap_project(finished_project)
    with TikmixSession.create(project_path=finished_project, env="tiny") as session:
        session.load_context()
    run = current_run()
    parameters = run.parameters.model_copy(update={"experiment": "alone"})
    set_current_run(run.with_parameters(parameters, root=tmp_path))
    shutil.copy2(finished_project / "mlflow.db", tmp_path)
    return tmp_path


NODE = node(lambda: None, inputs=None, outputs="round_0_mixture", name="decide")


def open_run(load: Callable[[str], Any], **run_params: Any) -> TrackingHooks:
    hooks = TrackingHooks(SimpleNamespace(run=current_run()))  # type: ignore[arg-type]
    hooks.before_pipeline_run(run_params, Pipeline([NODE]), Catalog(load))
    return hooks


def mixture(name: str) -> MixtureRecord:
    del name
    one = {"code": 1.0}
    return MixtureRecord(round=0, strategy="prior", chunk_tokens=1, weights=one, tokens={"code": 1}, epochs=one)


@pytest.mark.parametrize(
    ("error", "status"), [(TikmixError("a shard is altered"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_run_that_fails_before_its_first_node_is_closed(alone: Path, error: BaseException, status: str) -> None:
    def load(name: str) -> Any:
        raise error

    with pytest.raises(type(error)):
        open_run(load)
    assert [run.info.status for run in runs_of(alone, "alone")] == [status]


def test_interrupted_run_is_killed_once(alone: Path) -> None:
    hooks = open_run(mixture)
    hooks.close_as("KILLED")
    hooks.close_as("FAILED")
    hooks.on_pipeline_error()
    assert [run.info.status for run in runs_of(alone, "alone")] == ["KILLED"]


@pytest.mark.parametrize("error", [MlflowException("503"), ConnectionError("refused")])
def test_store_that_fails_under_way_leaves_the_run_untracked(
    alone: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    hooks = open_run(mixture)
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", fail)
    log = logging.getLogger("tikmix_pipeline.session.tracking_hooks")
    log.addHandler(caplog.handler)  # Kedro's logging does not hand records on to the root logger
    monkeypatch.setattr(log, "propagate", False)
    for _ in range(2):
        hooks.before_node_run(NODE)
        hooks.after_dataset_saved("round_0_mixture")
        hooks.after_node_run(NODE)
    hooks.after_pipeline_run(Pipeline([NODE]), Catalog(mixture))
    log.removeHandler(caplog.handler)
    (message,) = [record.getMessage() for record in caplog.records if record.name == log.name]
    assert message.startswith(f"MLflow could not be reached: {error}; the run goes on untracked")


def test_store_that_cannot_be_opened_ends_the_run(alone: Path) -> None:
    (alone / "mlflow.db").write_bytes(b"no database " * 1000)
    with pytest.raises(TikmixError, match="MLflow store cannot be used"):
        open_run(mixture)


def test_experiment_that_another_run_creates_in_between_is_used(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = mlflow.MlflowClient.get_experiment_by_name
    asked: list[str] = []

    def find_late(client: mlflow.MlflowClient, name: str) -> Any:
        asked.append(name)
        return find(client, name) if len(asked) > 1 else None

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", find_late)
    open_run(mixture).close_as("FINISHED")
    assert [run.info.status for run in runs_of(alone, "alone")] == ["FINISHED"]


def test_sweep_ends_with_its_table(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"code": 1.0}
    decision = DecisionRecord(
        strategy="surrogate",
        round=1,
        weights=one,
        expected_gain={"quiz": 0.0},
        binding=(),
        notes=("No better than additive.",),
        prior=one,
        direct_weights=one,
        direct_objective=-1.0,
        searched_weights=one,
        searched_objective=-0.5,
        kept="direct",
    )
    row = {"surrogate": "gp", "target": "quiz", "n": 8, "spearman": 0.5, "r2": 0.25, "coverage": 0.75}
    row["aggregate_spearman"] = 0.5
    content = {
        "round_0_sweep_decision": decision,
        "round_0_sweep_quality": pd.DataFrame([row | {"naive": False, "verdict": "cross-validation"}]),
    }
    pipeline = Pipeline([node(lambda: None, inputs=None, outputs=list(content), name="decide")])
    hooks = TrackingHooks(SimpleNamespace(run=current_run()))  # type: ignore[arg-type]
    hooks.before_pipeline_run({}, pipeline, Catalog(content.__getitem__))
    hooks.after_pipeline_run(pipeline, Catalog(content.__getitem__))
    assert "Decided: D's mixture is kept." in capsys.readouterr().out
    (run,) = (run for run in runs_of(alone, "alone") if "round" not in run.data.tags)
    assert "No better than additive." in run.data.tags["mlflow.note.content"]


def test_long_overrides_and_a_nameless_user_are_recorded(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)
    open_run(mixture, runtime_params={"corpus": {"domains": "x" * 20000}}).close_as("FINISHED")
    (run,) = runs_of(alone, "alone")
    assert run.data.tags["override.corpus.domains"] == "x" * 500
    assert run.data.tags["mlflow.user"] == str(os.getuid())


def test_commit_is_its_hash_also_after_a_tag(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert "commit" not in code_version(tmp_path)
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    git("tag", "-a", "v1", "-m", "one")
    git("commit", "--allow-empty", "-m", "second")
    commit = git("rev-parse", "HEAD")
    assert code_version(tmp_path)["commit"] == commit
    (tmp_path / "new.py").touch()
    tags = code_version(tmp_path)
    assert (tags["commit"], tags["mlflow.source.git.commit"]) == (f"{commit}-dirty", commit)
