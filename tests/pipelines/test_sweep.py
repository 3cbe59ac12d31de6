"""`sweep`, run for real on a small project: candidates, their responses, surrogates, and the mixture that follows."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.pipelines.conftest import run_in
from tests.pipelines.test_bad_input import refusal
from tests.pipelines.test_tikmix import made_when, mixture, outputs
from tests.pipelines.test_tracking import runs_of

DOMAINS, TASKS = ["code", "prose", "verse"], ["quiz", "riddle"]
SEARCH = {"rounds": 4, "samples": 128, "top": 8}
FEW: dict[str, Any] = {"candidates": 24, "surrogate": "ridge", "compared": ["linear"], "folds": 3, "search": SEARCH}


def sweep(project: Path, parameters: dict[str, Any], **changes: Any) -> None:
    run_in(project, "sweep", round=0, sweep=parameters | changes)


def swept(project: Path, name: str) -> pd.DataFrame:
    file = outputs(project) / "round_0" / "sweep" / name
    return pd.read_csv(file, dtype={"run": str}) if file.suffix == ".csv" else pd.read_parquet(file)


def decision(project: Path, number: int = 0, experiment: str = "one") -> dict[str, Any]:
    return json.loads((outputs(project, experiment) / f"round_{number}" / "sweep" / "decision.json").read_text())


@pytest.fixture(scope="session")
def swept_project(untouched_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished project whose round 0 has been swept by influence; not to be changed."""
    folder = Path(shutil.copytree(untouched_project, tmp_path_factory.mktemp("swept") / "project"))
    sweep(folder, FEW, exact=6)
    return folder


def test_candidates_and_responses_have_the_columns_of_olmix(swept_project: Path) -> None:
    ratios, metrics = swept(swept_project, "ratios.csv"), swept(swept_project, "metrics.csv")
    assert list(ratios.columns) == ["run", *DOMAINS]
    assert list(metrics.columns) == ["run", *TASKS]
    assert len(ratios) == len(metrics) == 24
    assert list(ratios["run"]) == list(metrics["run"])
    assert ratios[DOMAINS].sum(axis=1).to_numpy() == pytest.approx(1)
    direct = json.loads((outputs(swept_project) / "round_0" / "decision.json").read_text())["weights"]
    assert ratios[DOMAINS].iloc[0].to_dict() == pytest.approx(direct)
    assert ((ratios[DOMAINS] / pd.Series(direct)).to_numpy() <= 2 + 1e-4).all()


def test_response_of_influence_lies_between_what_the_worst_and_the_best_parts_would_give(swept_project: Path) -> None:
    ratios, metrics = swept(swept_project, "ratios.csv"), swept(swept_project, "metrics.csv")
    parts = pd.read_parquet(outputs(swept_project) / "round_0" / "part_influence.parquet")
    extremes = parts.groupby(["task", "domain"])["influence"].agg(["min", "max"])
    for task in TASKS:
        of_task = extremes.loc[task].loc[DOMAINS]
        least, most = (ratios[DOMAINS].to_numpy() @ of_task[side].to_numpy() for side in ("min", "max"))
        assert ((least - 1e-9 <= -metrics[task]) & (-metrics[task] <= most + 1e-9)).all()
        assert metrics[task].nunique() == 24


def test_parts_of_a_domain_make_its_influence(finished_project: Path) -> None:
    folder = outputs(finished_project) / "round_0"
    parts, whole = pd.read_parquet(folder / "part_influence.parquet"), pd.read_parquet(folder / "influence.parquet")
    parts["weighted"] = parts["influence"] * parts["tokens"]
    sums = parts.groupby(["task", "domain"])[["weighted", "tokens"]].sum()
    expected = whole.set_index(["task", "domain"])["influence"]
    assert (sums["weighted"] / sums["tokens"]).loc[expected.index].to_numpy() == pytest.approx(expected.to_numpy())


def test_exact_mode_measures_candidates_on_tokens_of_their_own(swept_project: Path) -> None:
    exact = swept(swept_project, "exact.parquet")
    assert exact["run"].nunique() == 6
    assert set(exact["task"]) == set(TASKS)
    assert not np.allclose(exact["exact"], exact["additive"], rtol=1e-6), "other tokens than those of the parts"
    z = (exact["exact"] - exact["additive"]) / exact["exact_stderr"]
    assert np.sqrt(np.mean(z**2)) < 5
    used = -swept(swept_project, "metrics.csv").set_index("run")[TASKS].stack()
    rows = list(zip(exact["run"], exact["task"], strict=True))
    assert exact["sampled"].to_numpy() == pytest.approx(used.loc[rows].to_numpy()), "the responses that decide"


def test_quality_has_the_columns_of_the_contract_with_the_naive_rules_beside(swept_project: Path) -> None:
    table = pd.read_parquet(swept_project / "data" / "08_reporting" / "one" / "sweep_quality.parquet")
    assert {"surrogate", "target", "n", "spearman", "r2", "round"} <= set(table.columns)
    assert {"ridge", "linear", "additive influence", "uniform distance"} <= set(table["surrogate"])
    assert set(table["target"]) == set(TASKS)
    assert (table["round"] == 0).all()


def test_surrogate_no_better_than_the_additive_prediction_leaves_the_mixture_of_direct(swept_project: Path) -> None:
    found = decision(swept_project)
    assert found["kept"] == "direct"
    assert found["weights"] == found["direct_weights"]
    assert any("additive" in note for note in found["notes"])


def test_told_otherwise_the_searched_mixture_is_taken(swept_project: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(swept_project, tmp_path / "project"))
    before = made_when(project / "data")
    sweep(project, FEW, exact=6, require_better=False)
    found = decision(project)
    assert found["kept"] == "surrogate"
    assert found["weights"] == found["searched_weights"]
    assert sum(found["weights"].values()) == pytest.approx(1)
    changed = {name for name, when in made_when(project / "data").items() if before.get(name) != when}
    kept = ("metrics.csv", "quality.parquet", "surrogate", "exact.parquet")
    assert not {f"07_model_output/one/round_0/sweep/{name}.recipe.json" for name in kept} & changed


def test_sweeping_makes_nothing_of_the_loop_again(untouched_project: Path, swept_project: Path) -> None:
    before, after = made_when(untouched_project / "data"), made_when(swept_project / "data")
    assert {name: after[name] for name in before} == before


def test_sweep_follows_a_measurement_that_found_its_own_size(project: Path) -> None:
    """Its parts are of unequal sizes."""
    auto = {"tokens": "auto", "max_tokens": 1024, "micro_batches": 2, "stable_within": 1e-6}
    for stage in ("influence", "optimize"):
        run_in(project, stage, influence=auto, round=0)
    run_in(project, "sweep", influence=auto, round=0, sweep=FEW)
    parts = pd.read_parquet(outputs(project) / "round_0" / "part_influence.parquet")
    assert parts["tokens"].nunique() > 1
    assert len(swept(project, "metrics.csv")) == 24


def test_loop_by_surrogate_trains_under_its_mixtures_and_records_both(finished_project: Path) -> None:
    run_in(
        finished_project,
        experiment="by-surrogate",
        tikmix={"strategy": "surrogate"},
        sweep=FEW | {"require_better": False},
    )
    for number in (0, 1):
        found, recorded = (
            decision(finished_project, number, "by-surrogate"),
            mixture(finished_project, number + 1, "by-surrogate"),
        )
        assert recorded["weights"] == pytest.approx(found["weights"], abs=1e-6)
        assert recorded["direct_weights"] == found["direct_weights"]
        assert recorded["kept"] == "surrogate"
    table = pd.read_parquet(outputs(finished_project, "by-surrogate") / "mixtures.parquet")
    assert list(table.drop_duplicates("round")["strategy"]) == ["prior", "surrogate", "surrogate"]
    direct, first = mixture(finished_project, 1), mixture(finished_project, 1, "by-surrogate")
    assert first["direct_weights"] == pytest.approx(direct["weights"], abs=1e-6), "D's decision is the start"
    assert first["weights"] != direct["weights"]


def test_stages_by_hand_give_the_same_bits_as_the_loop_by_surrogate(finished_project: Path) -> None:
    chosen = {"tikmix": {"strategy": "surrogate"}, "sweep": FEW}
    run_in(finished_project, experiment="whole", **chosen)
    for stage in ("train_chunk", "influence", "optimize", "sweep", "reweight"):
        run_in(finished_project, stage, experiment="staged", **chosen)
    assert mixture(finished_project, 1, "staged") == mixture(finished_project, 1, "whole")
    assert decision(finished_project, 0, "staged") == decision(finished_project, 0, "whole")


def test_a_model_of_the_objective_can_be_searched(project: Path) -> None:
    sweep(project, FEW, target="aggregate", require_better=False)
    table = swept(project, "quality.parquet")
    assert set(table["target"]) == {"aggregate"}
    assert decision(project)["kept"] == "surrogate"


def test_dirichlet_design_is_around_the_prior(project: Path) -> None:
    sweep(project, FEW, design="dirichlet", require_better=False)
    prior = mixture(project, 0)["weights"]
    assert swept(project, "ratios.csv")[DOMAINS].iloc[0].to_dict() == pytest.approx(prior)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"response": "table"}, "needs table.ratios and table.metrics"),
        (
            {"response": "table", "table": {"ratios": "no.csv", "metrics": "no.csv"}},
            "sweep.table.ratios: there is no file",
        ),
        ({"response": "table", "table": {"ratios": "a", "metrics": "b", "test_ratios": "c"}}, "go together"),
        ({"surogate": "gp"}, "Did you mean 'sweep.surrogate'?"),
        ({"candidates": 11}, "sweep.candidates"),
        ({"exact": 300}, "exact (300) is more than candidates (256)"),
        ({"search": {"coarse": 10.0, "fine": 1.0}}, "the search goes to the finer"),
        ({"choose": "measured"}, "set response=lookahead"),
    ],
)
def test_wrong_sweep_is_refused_before_anything_is_made(project: Path, wrong: dict[str, Any], message: str) -> None:
    assert message in refusal(project, "sweep", sweep=wrong)
    assert not (outputs(project) / "round_0" / "sweep").exists()


def test_too_tight_a_sweep_says_what_to_widen(project: Path) -> None:
    said = refusal(project, "sweep", round=0, sweep=FEW | {"low": 1.0, "high": 1.0})
    assert "sweep.low" in said
    assert "sweep.high" in said


def test_sweep_before_its_decision_names_the_command(project: Path) -> None:
    said = refusal(project, "sweep", experiment="fresh", round=0, sweep=FEW)
    assert "kedro run --pipelines" in said


def test_sweep_is_tracked_with_its_best_candidates_and_its_model(swept_project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{swept_project}/mlflow.db")
    runs = [run for run in runs_of(swept_project, "one") if run.data.tags["pipelines"] == "sweep"]
    candidates = [run for run in runs if "candidate" in run.data.tags]
    assert len(candidates) == 10
    assert {f"mixture/{name}" for name in DOMAINS} | {f"response/{name}" for name in TASKS} <= set(
        candidates[0].data.metrics
    )
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert "sweep/ridge/mean_spearman" in parent.data.metrics
    assert {"tables", "figures"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    # beside the checkpoints of rounds
    found = client.search_logged_models([parent.info.experiment_id])
    (model,) = (one for one in found if one.model_type != "checkpoint")
    assert model.name == "round_0_surrogate"
