"""`sweep` by lookahead, run for real on a small project: a branch of training under every candidate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.pipelines.conftest import interrupted_at, run_in
from tests.pipelines.test_sweep import DOMAINS, FEW, TASKS, sweep, swept
from tests.pipelines.test_tikmix import outputs
from tests.pipelines.test_tracking import runs_of
from tikmix_pipeline.lm import branch_pool
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.cost import training_cost
from tikmix_pipeline.parameters import ModelParameters
from tikmix_pipeline.session.kedro_session import UserError

BRANCHES = {"candidates": 12, "branch_tokens": 1024, "items": 8, "workers": 1}
AHEAD: dict[str, Any] = FEW | BRANCHES | {"response": "lookahead"}


@pytest.fixture(scope="session")
def looked_ahead(untouched_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished project whose round 0 has been swept by branches; not to be changed."""
    folder = Path(shutil.copytree(untouched_project, tmp_path_factory.mktemp("ahead") / "project"))
    sweep(folder, AHEAD)
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The branches that are trained from here on."""
    names: list[str] = []
    losses_after = branch_pool._losses_after

    def noting(setting: Any, texts: Any, branch: branch_pool.Branch) -> Any:
        names.append(branch.name)
        assert all(name.startswith("query/") for name in texts), "the evaluation half decides nothing"
        return losses_after(setting, texts, branch)

    monkeypatch.setattr(branch_pool, "_losses_after", noting)
    return names


def test_lookahead_scores_a_branch_of_every_candidate_and_of_the_reference(looked_ahead: Path) -> None:
    ratios, metrics = swept(looked_ahead, "ratios.csv"), swept(looked_ahead, "metrics.csv")
    assert list(ratios["run"]) == list(metrics["run"]) == [f"c{number:04d}" for number in range(12)] + ["reference"]
    assert metrics[TASKS].nunique().min() >= 6
    assert metrics[TASKS].min().min() > 0


def cost_of(project: Path) -> dict[str, Any]:
    return json.loads((outputs(project) / "round_0" / "sweep" / "cost.json").read_text())


def test_cost_is_that_of_training_and_scoring_every_branch(looked_ahead: Path) -> None:
    model = Checkpoint(looked_ahead / "data" / "06_models" / "one" / "round_0").model(ModelParameters())
    report = cost_of(looked_ahead)
    parts = report["cost"]["parts"]
    assert report["branches"] == 13
    assert parts["training"] == training_cost(model.config, context=32, tokens=13 * 1024).to_dict()
    assert 0 < parts["scoring"]["flops"] < parts["training"]["flops"]
    assert report["cost"]["tokens"] == parts["training"]["tokens"] + parts["scoring"]["tokens"]
    metrics = [run.data.metrics for run in runs_of(looked_ahead, "one")]
    logged = next(of_run for of_run in metrics if "cost/sweep/flops" in of_run)
    assert [logged[f"cost/sweep/{unit}"] for unit in ("tokens", "flops")] == [
        report["cost"]["tokens"],
        report["cost"]["flops"],
    ]


def test_killed_lookahead_trains_only_what_is_missing(
    project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted_at(4, trained, monkeypatch):
        sweep(project, AHEAD)
    trained.clear()
    sweep(project, AHEAD)
    assert trained == [*(f"c{number:04d}" for number in range(3, 12)), "reference"]
    assert cost_of(project)["branches"] == 13, "those of before cost what they cost"
    trained.clear()
    sweep(project, AHEAD, surrogate="linear", objective="sum")
    assert trained == []


def test_failed_branch_is_left_out(project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    losses_after = branch_pool._losses_after

    def failing(setting: Any, texts: Any, branch: branch_pool.Branch) -> Any:
        if branch.name == "c0002":
            raise branch_pool.DivergedError("Training diverged at step 3")
        return losses_after(setting, texts, branch)

    monkeypatch.setattr(branch_pool, "_losses_after", failing)
    sweep(project, AHEAD)
    assert "c0002" in set(swept(project, "ratios.csv")["run"])
    assert "c0002" not in set(swept(project, "metrics.csv")["run"])
    assert set(swept(project, "quality.parquet")["n"]) == {12}
    assert len(swept(project, "predictions.parquet")["run"].unique()) == 12


def test_sweep_whose_branches_nearly_all_failed_ends_with_a_message(
    project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_after = branch_pool._losses_after

    def failing(setting: Any, texts: Any, branch: branch_pool.Branch) -> Any:
        if branch.name not in ("c0001", "c0002"):
            raise branch_pool.DivergedError("Training diverged at step 3")
        return losses_after(setting, texts, branch)

    monkeypatch.setattr(branch_pool, "_losses_after", failing)
    with pytest.raises(UserError, match="2 "):
        sweep(project, AHEAD)


def test_losses_keep_their_columns_when_half_of_them_are_read_back(
    project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`quiz` sorts behind `heldout-code`: what is read back is in another order than what is new."""
    wide = {"targets": "all", "tokens": 64, "micro_batches": 2}
    run_in(project, "influence", influence=wide, round=0)
    run_in(project, "optimize", influence=wide, round=0)
    with interrupted_at(4, trained, monkeypatch):
        run_in(project, "sweep", influence=wide, round=0, sweep=AHEAD)
    run_in(project, "sweep", influence=wide, round=0, sweep=AHEAD)
    metrics = swept(project, "metrics.csv")
    assert list(metrics.columns[1:]) == [*TASKS, *(f"heldout-{domain}" for domain in DOMAINS)]
    assert (metrics.iloc[:, 1:].std() < 0.2).all(), "no target's losses are among another's"


def test_prior_is_not_trained_twice_where_it_is_a_candidate(project: Path, trained: list[str]) -> None:
    sweep(project, AHEAD, design="dirichlet")
    mixtures = swept(project, "ratios.csv")[DOMAINS].round(9)
    assert not mixtures.duplicated().any()
    assert len(trained) == len(mixtures)


def test_loop_by_lookahead_says_what_its_mixtures_are_expected_to_gain(finished_project: Path) -> None:
    run_in(finished_project, experiment="ahead", tikmix={"strategy": "surrogate"}, sweep=AHEAD)
    summary = json.loads((finished_project / "data" / "08_reporting" / "ahead" / "summary.json").read_text())
    assert set(summary["expected_gain"]) == set(TASKS)
    assert summary["response"] == "lookahead"
    metrics = pd.read_csv(outputs(finished_project, "ahead") / "round_0" / "sweep" / "metrics.csv")
    assert "reference" in set(metrics["run"])


@pytest.mark.parametrize("design", ["latin_hypercube", "dirichlet"])
def test_best_of_the_measured_candidates_is_taken_without_a_surrogate(
    project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch, design: str
) -> None:
    """D's mixture and the reference are among the candidates, by whatever name."""
    train = branch_pool._losses_after

    def planted(setting: Any, texts: Any, branch: branch_pool.Branch) -> Any:
        losses = train(setting, texts, branch)
        best = 0.5 if branch.name == "c0006" else 1.0
        return {name: replace(loss, nats=loss.nats * best) for name, loss in losses.items()}

    monkeypatch.setattr(branch_pool, "_losses_after", planted)
    sweep(project, AHEAD, choose="measured", design=design)
    ratios, metrics = (swept(project, f"{name}.csv").set_index("run") for name in ("ratios", "metrics"))
    direct = json.loads((outputs(project) / "round_0" / "decision.json").read_text())
    mixtures = [mixture.to_dict() for _, mixture in ratios.iterrows()]
    assert direct["weights"] in mixtures
    assert direct["reference"] in mixtures
    found = json.loads((outputs(project) / "round_0" / "sweep" / "decision.json").read_text())
    assert metrics.mean(axis=1).idxmin() == "c0006"
    assert found["weights"] == ratios.loc["c0006"].to_dict()
    reference = metrics.loc[[run for run in metrics.index if ratios.loc[run].to_dict() == direct["reference"]]].iloc[0]
    assert found["expected_gain"] == pytest.approx((reference - metrics.loc["c0006"]).to_dict())
    assert all(gain > 0 for gain in found["expected_gain"].values())
    made = {path.name for path in (outputs(project) / "round_0" / "sweep").iterdir()}
    assert not made & {"surrogate", "quality.parquet", "trace.parquet", "predictions.parquet"}


def test_loop_by_measured_candidates_trains_under_the_best(finished_project: Path) -> None:
    run_in(
        finished_project,
        experiment="oracle",
        tikmix={"strategy": "surrogate", "decisions": 1},
        sweep=AHEAD | {"choose": "measured", "branch_tokens": 128},
    )
    folder = outputs(finished_project, "oracle")
    found = json.loads((folder / "round_0" / "sweep" / "decision.json").read_text())
    recorded = json.loads((folder / "round_1" / "mixture.json").read_text())
    assert recorded["weights"] == pytest.approx(found["weights"], abs=1e-6)
    assert json.loads((folder / "round_0" / "sweep" / "cost.json").read_text())["cost"]["flops"] > 0
