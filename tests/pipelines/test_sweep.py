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
from tikmix_pipeline.lm import branch_pool
from tikmix_pipeline.session import UserError

DOMAINS, TASKS = ["code", "prose", "verse"], ["quiz", "riddle"]
SEARCH = {"rounds": 4, "samples": 128, "top": 8}
FEW: dict[str, Any] = {"candidates": 24, "surrogate": "ridge", "compared": ["linear"], "folds": 3, "search": SEARCH}
BRANCHES = {"candidates": 12, "branch_tokens": 1024, "items": 8, "workers": 1}
AHEAD: dict[str, Any] = FEW | BRANCHES | {"response": "lookahead"}


def sweep(project: Path, parameters: dict[str, Any], **changes: Any) -> None:
    run_in(project, "sweep", round=0, sweep=parameters | changes)


def swept(project: Path, name: str) -> pd.DataFrame:
    file = outputs(project) / "round_0" / "sweep" / name
    return pd.read_csv(file, dtype={"run": str}) if file.suffix == ".csv" else pd.read_parquet(file)


def decision(project: Path, number: int = 0, experiment: str = "one") -> dict[str, Any]:
    return json.loads((outputs(project, experiment) / f"round_{number}" / "sweep" / "decision.json").read_text())


@pytest.fixture(scope="session")
def swept_project(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished project whose round 0 has been swept by influence; not to be changed."""
    folder = Path(shutil.copytree(finished_project, tmp_path_factory.mktemp("swept") / "project"))
    sweep(folder, FEW, exact=6)
    return folder


@pytest.fixture(scope="session")
def looked_ahead(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished project whose round 0 has been swept by branches; not to be changed."""
    folder = Path(shutil.copytree(finished_project, tmp_path_factory.mktemp("ahead") / "project"))
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


def test_sweeping_makes_nothing_of_the_loop_again(finished_project: Path, swept_project: Path) -> None:
    before, after = made_when(finished_project / "data"), made_when(swept_project / "data")
    assert {name: after[name] for name in before} == before


def test_lookahead_scores_a_branch_of_every_candidate_and_of_the_reference(looked_ahead: Path) -> None:
    ratios, metrics = swept(looked_ahead, "ratios.csv"), swept(looked_ahead, "metrics.csv")
    assert list(ratios["run"]) == list(metrics["run"]) == [f"c{number:04d}" for number in range(12)] + ["reference"]
    assert metrics[TASKS].nunique().min() >= 6
    assert metrics[TASKS].min().min() > 0


def test_killed_lookahead_trains_only_what_is_missing(
    project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = branch_pool.train_branch

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        if len(trained) == 4:
            raise KeyboardInterrupt
        return train(*arguments, **keywords)

    monkeypatch.setattr(branch_pool, "train_branch", interrupted)
    with pytest.raises(UserError, match="Interrupted"):
        sweep(project, AHEAD)
    monkeypatch.setattr(branch_pool, "train_branch", train)
    trained.clear()
    sweep(project, AHEAD)
    assert trained == [*(f"c{number:04d}" for number in range(3, 12)), "reference"]
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
    train = branch_pool.train_branch

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        if len(trained) == 4:
            raise KeyboardInterrupt
        return train(*arguments, **keywords)

    monkeypatch.setattr(branch_pool, "train_branch", interrupted)
    with pytest.raises(UserError, match="Interrupted"):
        run_in(project, "sweep", influence=wide, round=0, sweep=AHEAD)
    monkeypatch.setattr(branch_pool, "train_branch", train)
    run_in(project, "sweep", influence=wide, round=0, sweep=AHEAD)
    metrics = swept(project, "metrics.csv")
    assert list(metrics.columns[1:]) == [*TASKS, *(f"heldout-{domain}" for domain in DOMAINS)]
    assert (metrics.iloc[:, 1:].std() < 0.2).all(), "no target's losses are among another's"


def test_prior_is_not_trained_twice_where_it_is_a_candidate(project: Path, trained: list[str]) -> None:
    sweep(project, AHEAD, design="dirichlet")
    mixtures = swept(project, "ratios.csv")[DOMAINS].round(9)
    assert not mixtures.duplicated().any()
    assert len(trained) == len(mixtures)


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


def test_loop_by_lookahead_says_what_its_mixtures_are_expected_to_gain(finished_project: Path) -> None:
    run_in(finished_project, experiment="ahead", tikmix={"strategy": "surrogate"}, sweep=AHEAD)
    summary = json.loads((finished_project / "data" / "08_reporting" / "ahead" / "summary.json").read_text())
    assert set(summary["expected_gain"]) == set(TASKS)
    assert summary["response"] == "lookahead"
    metrics = pd.read_csv(outputs(finished_project, "ahead") / "round_0" / "sweep" / "metrics.csv")
    assert "reference" in set(metrics["run"])


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


def tables(folder: Path, rows: int = 60) -> dict[str, str]:
    """Write a user's own tables, with names and ids as RegMix has them."""
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(4), size=rows)
    losses = 3 - np.log(weights[:, :2] + 0.05) + 0.01 * generator.normal(size=(rows, 2))
    ratios = pd.DataFrame(weights, columns=[f"train_{name}" for name in "abcd"]).rename_axis("index")
    metrics = pd.DataFrame(losses, columns=["val_a_loss", "val_b_loss"]).rename_axis("index")
    files = {}
    for name, part in {"": slice(0, rows - 20), "test_": slice(rows - 20, rows)}.items():
        for kind, table in {"ratios": ratios, "metrics": metrics}.items():
            file = folder / f"{name}{kind}.csv"
            table.iloc[part].to_csv(file)
            files[f"{name}{kind}"] = str(file)
    return files


def test_tables_are_swept_by_themselves(tmp_path: Path, finished_project: Path) -> None:
    """Neither a corpus nor a checkpoint is there."""
    project = tmp_path / "project"
    for name in ("conf", "pyproject.toml", "src", ".telemetry"):
        source = finished_project / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, _inside(project, name))
    files = tables(tmp_path)
    run_in(project, "sweep", sweep=FEW | {"response": "table", "table": files})
    quality = pd.read_parquet(project / "data" / "08_reporting" / "one" / "sweep_quality.parquet")
    ridge = quality[quality["surrogate"] == "ridge"]
    assert list(ridge["target"]) == ["val_a_loss", "val_b_loss"]
    assert (ridge["n"] == 40).all()
    assert (ridge["verdict"] == "test").all()
    assert ridge["spearman"].min() > 0.9
    assert "matching domain" in set(quality["surrogate"])
    found = decision(project)
    assert found["direct_weights"] is None
    assert found["weights"]["train_a"] + found["weights"]["train_b"] > 0.7
    assert not (project / "data" / "03_primary" / "tiny").exists()


def _inside(project: Path, name: str) -> Path:
    project.mkdir(exist_ok=True)
    return project / name


def test_second_run_over_tables_makes_nothing_again(tmp_path: Path, project: Path) -> None:
    parameters = FEW | {"response": "table", "table": tables(tmp_path)}
    run_in(project, "sweep", experiment="tables", sweep=parameters)
    before = made_when(project / "data")
    run_in(project, "sweep", experiment="tables", sweep=parameters)
    assert made_when(project / "data") == before


def test_test_table_is_matched_by_the_names_of_its_columns(tmp_path: Path, project: Path) -> None:
    files = tables(tmp_path)
    parameters = FEW | {"response": "table", "table": files}
    run_in(project, "sweep", experiment="tables", sweep=parameters)
    expected = pd.read_parquet(outputs(project, "tables") / "round_0" / "sweep" / "quality.parquet")
    for name in ("test_ratios", "test_metrics"):
        table = pd.read_csv(files[name])
        table[["index", *table.columns[:0:-1]]].to_csv(files[name], index=False)
    run_in(project, "sweep", experiment="tables", sweep=parameters)
    found = pd.read_parquet(outputs(project, "tables") / "round_0" / "sweep" / "quality.parquet")
    pd.testing.assert_frame_equal(found, expected)
    pd.read_csv(files["test_ratios"]).rename(columns={"train_a": "train_x"}).to_csv(files["test_ratios"], index=False)
    assert "train_x" in refusal(project, "sweep", experiment="tables", sweep=parameters)


def test_changed_table_is_read_again(tmp_path: Path, project: Path) -> None:
    parameters = FEW | {"response": "table", "table": tables(tmp_path)}
    run_in(project, "sweep", experiment="tables", sweep=parameters)
    first = decision(project, 0, "tables")
    metrics = pd.read_csv(parameters["table"]["metrics"])
    metrics["val_a_loss"] *= -1
    metrics.to_csv(parameters["table"]["metrics"], index=False)
    run_in(project, "sweep", experiment="tables", sweep=parameters)
    assert decision(project, 0, "tables")["weights"] != first["weights"]


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
    ],
)
def test_wrong_sweep_is_refused_before_anything_is_made(project: Path, wrong: dict[str, Any], message: str) -> None:
    assert message in refusal(project, "sweep", sweep=wrong)
    assert not (outputs(project) / "round_0" / "sweep").exists()


def test_too_tight_a_sweep_says_what_to_widen(project: Path) -> None:
    said = refusal(project, "sweep", round=0, sweep=FEW | {"low": 1.0, "high": 1.0})
    assert "sweep.low" in said
    assert "sweep.high" in said


def test_loop_cannot_be_decided_by_tables(project: Path, tmp_path: Path) -> None:
    wrong = {"response": "table", "table": tables(tmp_path)}
    assert "tikmix.strategy=surrogate" in refusal(project, tikmix={"strategy": "surrogate"}, sweep=wrong)


def test_sweep_before_its_decision_names_the_command(project: Path) -> None:
    said = refusal(project, "sweep", experiment="fresh", round=0, sweep=FEW)
    assert "kedro run --pipelines" in said


def test_sweep_is_tracked_with_its_best_candidates_and_its_model(swept_project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{swept_project}/mlflow.db")
    runs = [run for run in runs_of(swept_project, "one") if run.data.tags["pipelines"] == "sweep"]
    candidates = [run for run in runs if "candidate" in run.info.run_name]
    assert len(candidates) == 10
    assert {f"mixture/{name}" for name in DOMAINS} | {f"response/{name}" for name in TASKS} <= set(
        candidates[0].data.metrics
    )
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert "sweep/ridge/mean_spearman" in parent.data.metrics
    assert {"tables", "figures"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert model.name == "round_0_surrogate"
