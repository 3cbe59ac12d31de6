"""What MLflow holds of a sweep."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.utils.validation import _validate_metric_name
from sklearn.linear_model import LinearRegression

from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.sweep.surrogates import build_surrogate
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.parameters.sweep import TABLE_SURROGATES, SurrogateKind
from tikmix_pipeline.run import Run
from tikmix_pipeline.session.tracking.logged import METRICS, keys_of
from tikmix_pipeline.session.tracking.sweep import best_candidates, candidates_table, write_model
from tikmix_pipeline.session.tracking.tracker import Tracker

DOMAINS = ["code", "prose (old)", "verse"]
TARGETS = ["quiz", "heldout/code"]
DECISION = DecisionRecord(strategy="surrogate", round=2, weights={"code": 1.0}, expected_gain={}, binding=(), notes=())


def frames(count: int = 24) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mixtures, and responses that are linear in them; `c3` failed and has none."""
    weights_NK = np.random.default_rng(0).dirichlet(np.ones(3), count)
    response_NT = 3 + weights_NK @ np.array([[-1.0, 0.5], [0.2, 0.1], [0.3, -0.6]])
    runs = [f"c{number}" for number in range(count)]
    ratios = pd.DataFrame(weights_NK, columns=DOMAINS)
    metrics = pd.DataFrame(response_NT, columns=TARGETS)
    ratios.insert(0, "run", runs)
    metrics.insert(0, "run", runs)
    return ratios, metrics.drop(index=3)


def quality() -> pd.DataFrame:
    rows = [
        ("xgboost", "quiz", 0.75, 0.5, float("nan")),
        ("xgboost", "heldout/code", float("nan"), float("nan"), float("nan")),
        ("uniform distance", "quiz", 0.25, float("nan"), 0.125),
    ]
    return pd.DataFrame(rows, columns=["surrogate", "target", "spearman", "r2", "aggregate_spearman"]).assign(
        round=1, naive=False
    )


def test_names_that_differ_have_metrics_of_their_own_and_valid_ones_stay() -> None:
    names = ["acc@1", "acc1", "acc#1", "f1 (5-shot)", "bits/byte", "bits-byte", "@@@", "..", "ä_b.c-d", "x" * 300]
    keys = keys_of(names)
    assert len(set(keys.values())) == len(names)
    assert [keys[name] for name in ("acc1", "f1 (5-shot)", "bits-byte", "ä_b.c-d")] == [
        *("acc1", "f1-5-shot", "bits-byte", "ä_b.c-d")
    ]
    for key in keys.values():
        _validate_metric_name(f"sweep/gp/{key}/spearman")
    assert keys == keys_of(reversed(names)), "whatever their order"


def test_metrics_of_a_table_and_of_its_candidates_do_not_fall_together() -> None:
    table = quality().replace({"quiz": "acc@1", "heldout/code": "acc1"}).assign(spearman=[0.25, 0.5, 0.75])
    found = {key: value for key, value, _ in METRICS["sweep_quality"](table, 1)}
    (other,) = (key for key in found if key.startswith("sweep/xgboost/acc1-") and key.endswith("/spearman"))
    assert (found["sweep/xgboost/acc1/spearman"], found[other]) == (0.5, 0.25)
    shares, responses = {"mixture/a b": 0.25, "mixture/a-b": 0.75}, {"response/acc@1": 1.0, "response/acc1": 2.0}
    row = {"run": "a", "mean_rank": 1.0, **shares, **responses}
    of_candidate = {key: value for key, value, _ in best_candidates(pd.DataFrame([row]))["a"]}
    assert (of_candidate["mixture/a-b"], of_candidate["response/acc1"], len(of_candidate)) == (0.75, 2.0, 5)


def fitted(estimator: Any) -> Any:
    ratios, metrics = frames()
    measured = ratios.merge(metrics, on="run")
    return estimator.fit(measured[DOMAINS].to_numpy(), measured[TARGETS].to_numpy())


def tracker_in(folder: Path, experiment: str) -> Tracker:
    domains = {"code": {"sources": [{"kind": "standard_library"}]}}
    tasks = {"quiz": {"sources": [{"kind": "files", "path": "quiz.jsonl"}]}}
    parameters = check_parameters({"experiment": experiment, "corpus": {"domains": domains, "tasks": tasks}})
    return Tracker(Run(parameters, {}, folder, lambda *_: 0), {})


class Store:
    """What MLflow holds of an experiment."""

    def __init__(self, folder: Path, experiment: str) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.client = mlflow.MlflowClient(self.uri)
        found = self.client.get_experiment_by_name("tikmix")
        assert found is not None
        self.runs = list(self.client.search_runs([found.experiment_id], f"tags.experiment = '{experiment}'"))

    def named(self, name: str) -> Any:
        (run,) = [run for run in self.runs if run.info.run_name.rpartition(" · ")[2] == name]
        return run

    def model_of(self, name: str) -> str:
        (output,) = self.named(name).outputs.model_outputs
        return str(output.model_id)

    @property
    def candidates(self) -> list[Any]:
        """Their runs, as they were made."""
        runs = [run for run in self.runs if "candidate" in run.data.tags]
        return sorted(runs, key=lambda run: run.info.start_time)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run that logged a sweep in the order in which a reused one is logged: by name."""
    folder = tmp_path_factory.mktemp("sweep")
    ratios, metrics = frames()
    tracker = tracker_in(folder, "mine")
    tracker.log("round_1_surrogate", fitted(LinearRegression()))
    tracker.log("round_1_sweep_decision", DECISION)
    tracker.log("round_1_sweep_metrics", metrics)
    tracker.log("round_1_sweep_quality", quality())
    tracker.log("round_1_sweep_ratios", ratios)
    tracker.close("FINISHED")
    return Store(folder, "mine")


def test_table_has_every_candidate_also_one_that_failed() -> None:
    ratios, metrics = frames()
    table = candidates_table(ratios, metrics.sample(frac=1, random_state=0))
    assert list(table["run"]) == list(ratios["run"])
    np.testing.assert_array_equal(table["mixture/code"], ratios["code"])
    assert table.loc[table["run"] != "c3", "response/quiz"].tolist() == metrics["quiz"].tolist()
    assert table.set_index("run").loc["c3", ["response/quiz", "mean_rank"]].isna().all()


def test_best_candidates_have_the_lowest_mean_rank_whatever_the_units() -> None:
    ratios = pd.DataFrame({"run": ["a", "b", "c"], "code": [0.2, 0.3, 0.5]})
    metrics = pd.DataFrame({"run": ["a", "b", "c"], "x": [3.0, 1.0, 2.0], "y": [100.0, 500.0, 300.0], "z": [3, 1, 2]})
    best = best_candidates(candidates_table(ratios, metrics))
    assert list(best) == ["b", "c", "a"]
    assert {key: value for key, value, _ in best["b"]}["mean_rank"] == pytest.approx(5 / 3)


def test_all_candidates_are_a_table_of_the_run(store: Store) -> None:
    file = store.client.download_artifacts(store.named("mine").info.run_id, "tables/round_1/sweep.parquet")
    assert len(pd.read_parquet(file)) == 24


def test_best_candidates_are_child_runs_of_the_round(store: Store) -> None:
    parent = store.named("mine round 1")
    assert parent.data.tags["mlflow.parentRunId"] == store.named("mine").info.run_id
    assert len(store.candidates) == 10
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in store.candidates)
    assert all(run.info.status == "FINISHED" for run in store.runs)
    best = store.candidates[0]
    ratios, metrics = (frame.set_index("run").loc[best.data.tags["candidate"]] for frame in frames())
    assert best.info.run_name == f"mine round 1 candidate {best.data.tags['candidate']}"
    assert best.data.metrics["mixture/prose-old"] == ratios["prose (old)"]
    assert best.data.metrics["response/heldout-code"] == metrics["heldout/code"]
    ranks = [run.data.metrics["mean_rank"] for run in store.candidates]
    assert ranks == sorted(ranks)


def test_quality_is_logged_where_it_is_defined(store: Store) -> None:
    logged = {key: value for key, value in store.named("mine").data.metrics.items() if key.startswith("sweep/")}
    assert logged == {
        "sweep/xgboost/quiz/spearman": 0.75,
        "sweep/xgboost/quiz/r2": 0.5,
        "sweep/xgboost/mean_spearman": 0.75,
        "sweep/xgboost/undefined": 1,
        "sweep/uniform-distance/quiz/spearman": 0.25,
        "sweep/uniform-distance/mean_spearman": 0.25,
        "sweep/uniform-distance/aggregate_spearman": 0.125,
        "sweep/uniform-distance/undefined": 0,
    }
    assert logged.items() <= store.named("mine round 1").data.metrics.items()


def test_decision_is_an_artifact(store: Store) -> None:
    artifacts = store.client.list_artifacts(store.named("mine").info.run_id, "sweep_decision")
    assert [artifact.path for artifact in artifacts] == ["sweep_decision/round_1.json"]


def test_surrogate_is_a_model_of_the_round_and_says_what_it_takes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_id = store.model_of("mine round 1")
    assert model_id == store.model_of("mine")
    entry = store.client.get_logged_model(model_id)
    assert (entry.name, entry.status, entry.tags["round"]) == ("round_1_surrogate", "READY", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    info = mlflow.models.get_model_info(f"models:/{model_id}")
    assert info.metadata == {"domains": DOMAINS, "targets": TARGETS}
    assert info.signature.inputs.inputs[0].shape == (-1, 3)
    assert info.signature.outputs.inputs[0].shape == (-1, 2)


def test_logged_surrogate_predicts_as_the_fitted_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    loaded = mlflow.sklearn.load_model(f"models:/{store.model_of('mine round 1')}")
    weights_NK = frames()[0][DOMAINS].to_numpy()
    np.testing.assert_array_equal(loaded.predict(weights_NK), fitted(LinearRegression()).predict(weights_NK))


@pytest.mark.parametrize("kind", TABLE_SURROGATES)
def test_every_kind_of_surrogate_can_be_logged_and_loaded(kind: SurrogateKind, tmp_path: Path) -> None:
    estimator = fitted(build_surrogate(kind, folds=2, seed=0))
    entry = SimpleNamespace(model_id="m-" + "0" * 32, source_run_id="0" * 32)
    write_model(estimator, *frames(), entry, tmp_path / "model")
    weights_NK = frames()[0][DOMAINS].to_numpy()
    loaded = mlflow.sklearn.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(weights_NK), estimator.predict(weights_NK))
    assert not list((tmp_path / "model").glob("*.pkl"))


def test_surrogate_made_later_is_logged_beside_reused_candidates_once(store: Store) -> None:
    ratios, metrics = frames()
    tracker = tracker_in(store.folder, "later")
    tracker.log("round_0_sweep_metrics", metrics)
    tracker.log("round_0_sweep_ratios", ratios)
    tracker.log("round_0_surrogate", fitted(LinearRegression()))
    tracker.close("FINISHED")
    later = Store(store.folder, "later")
    assert len(later.candidates) == 10
    assert later.model_of("later round 0") == later.model_of("later")
