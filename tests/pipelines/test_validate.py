"""`validate`, run for real on a small project: branches, predictions, the table and what is kept."""

import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from tests.pipelines.conftest import interrupted_at, run_in
from tests.pipelines.test_tikmix import made_when, outputs
from tests.pipelines.test_tracking import runs_of
from tikmix_pipeline.influence.group import MOVED_SHARE
from tikmix_pipeline.lm import branch_pool
from tikmix_pipeline.parameters import ValidateParameters
from tikmix_pipeline.session.kedro_session import UserError

VALIDATE: dict[str, Any] = {"step": 0.1, "tokens": 256, "replicates": 2, "items": 8, "workers": 1}
TWO = [{"curvature": "identity"}, {"curvature": "kfac", "damping": 0.2}]


def validate(project: Path, **changes: Any) -> None:
    parameters = {name: changes.pop(name) for name in list(changes) if name in ("round", "train", "influence")}
    run_in(project, "validate", validate=VALIDATE | changes, **({"round": 0} | parameters))


@pytest.fixture(scope="session")
def validated_project(untouched_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished project whose round 0 has been validated; not to be changed."""
    folder = Path(shutil.copytree(untouched_project, tmp_path_factory.mktemp("validated") / "project"))
    validate(folder)
    return folder


@pytest.fixture
def validated(tmp_path: Path, validated_project: Path) -> Path:
    """A copy of the validated project, to do anything with."""
    return Path(shutil.copytree(validated_project, tmp_path / "project"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The branches that are trained from here on."""
    names: list[str] = []
    losses_after = branch_pool._losses_after

    def noting(setting: Any, texts: Any, branch: branch_pool.Branch) -> Any:
        names.append(f"{branch.name} {branch.replicate}")
        return losses_after(setting, texts, branch)

    monkeypatch.setattr(branch_pool, "_losses_after", noting)
    return names


def table_of(project: Path) -> pd.DataFrame:
    return pd.read_parquet(project / "data" / "08_reporting" / "one" / "validate.parquet")


def test_table_has_the_columns_of_the_contract_for_every_candidate_and_task(validated_project: Path) -> None:
    table = table_of(validated_project)
    assert {"curvature", "task", "spearman", "pearson", "slope", "ceiling"} <= set(table.columns)
    assert set(table["task"]) == {"quiz", "riddle", "mean of tasks", "mean gain"}
    labels = [candidate.label for candidate in ValidateParameters().candidates]
    assert list(table["curvature"].unique()) == labels
    assert len(table) == len(labels) * 4
    assert table["pearson"].between(-1, 1).all()
    assert table["best"].sum() == 4
    means = table[table["task"] == "mean of tasks"]
    assert means.loc[means["best"], "pearson"].item() == means["pearson"].max()
    assert set(table["replicates"]) == {2}


def test_every_branch_is_scored_on_both_halves_of_every_task(validated_project: Path) -> None:
    losses = pd.read_parquet(outputs(validated_project) / "round_0" / "branch_losses.parquet")
    assert list(losses.columns) == ["replicate", "branch", "task", "half", "loss", "nats", "tokens"]
    assert set(losses["branch"]) == {"baseline", "+code", "+prose", "+verse"}
    assert len(losses.drop_duplicates(["replicate", "branch", "task", "half"])) == len(losses) == 2 * 4 * 2 * 2
    assert losses.groupby(["task", "half"])["loss"].nunique().min() > 3


def test_candidate_with_the_settings_of_influence_predicts_with_its_very_matrix(validated: Path) -> None:
    """A branch's step is so many times the share that `effect` is stated for."""
    own = {"curvature": "kfac", "inverse": "damped", "damping": 0.1, "damping_unit": "relative", "calibration": 1.0}
    run_in(validated, "influence", influence=own, round=0)
    folder = outputs(validated) / "round_0"
    measured, predictions = (pd.read_parquet(folder / f"{name}.parquet") for name in ("influence", "predictions"))
    ours = predictions[predictions["candidate"] == "kfac damped 0.1 (relative)"].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours[["task", "domain", "influence"]], measured[["task", "domain", "influence"]])
    assert ours["predicted"].to_numpy() == pytest.approx(VALIDATE["step"] / MOVED_SHARE * measured["effect"].to_numpy())


def test_factors_of_the_run_are_used_and_only_others_are_fitted(validated_project: Path) -> None:
    folder = outputs(validated_project) / "round_0"
    assert sorted(path.name for path in folder.glob("factors*") if path.is_dir() and not path.suffix) == [
        "factors",
        "factors_diagonal",
        "factors_ekfac",
    ]


def test_validating_makes_nothing_of_the_loop_again(untouched_project: Path, validated_project: Path) -> None:
    before, after = made_when(untouched_project / "data"), made_when(validated_project / "data")
    assert {name: after[name] for name in before} == before


def test_rerun_makes_nothing_again(validated: Path, trained: list[str]) -> None:
    before = made_when(validated / "data")
    validate(validated)
    assert made_when(validated / "data") == before
    assert trained == []


def test_another_damping_costs_neither_branch_nor_backward_pass(validated: Path, trained: list[str]) -> None:
    before = made_when(validated / "data")
    validate(validated, candidates=TWO)
    after = made_when(validated / "data")
    folder = "07_model_output/one/round_0"
    changed = {name for name in after if before.get(name) != after[name]}
    assert f"{folder}/validation.parquet.recipe.json" in changed
    kept = ("branch_losses.parquet", "gradients", "factors", "factors_ekfac", "influence.parquet")
    assert not {f"{folder}/{name}.recipe.json" for name in kept} & changed
    assert trained == []
    assert list(table_of(validated)["curvature"].unique()) == ["identity", "kfac damped 0.2 (relative)"]


def test_other_half_is_compared_without_another_branch(validated: Path, trained: list[str]) -> None:
    before = table_of(validated)
    validate(validated, half="query")
    after = table_of(validated)
    assert set(after["half"]) == {"query"}
    assert not after["pearson"].equals(before["pearson"])
    assert trained == []


def test_one_more_replicate_trains_itself_alone(validated: Path, trained: list[str]) -> None:
    validate(validated, replicates=3)
    assert trained == ["baseline 2", "+code 2", "+prose 2", "+verse 2"]
    assert set(table_of(validated)["replicates"]) == {3}


def test_interrupted_branches_are_kept(validated: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with interrupted_at(3, trained, monkeypatch):
        validate(validated, step=0.5)
    assert trained == ["+code 0", "+prose 0", "+verse 0"], "the first baseline is that of the other step"
    trained.clear()
    validate(validated, step=0.5)
    assert trained == ["+verse 0", "baseline 1", "+code 1", "+prose 1", "+verse 1"]


def test_failed_branch_is_left_out_of_the_comparison(validated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = branch_pool.train_branch

    def failing(checkpoint: Any, shards: Any, mixture: Any, **keywords: Any) -> Any:
        if keywords["replicate"] == 1 and mixture["verse"] == max(mixture.values()):
            raise branch_pool.DivergedError("Training diverged at step 9")
        return train(checkpoint, shards, mixture, **keywords)

    monkeypatch.setattr(branch_pool, "train_branch", failing)
    validate(validated, step=0.5)
    losses = pd.read_parquet(outputs(validated) / "round_0" / "branch_losses.parquet")
    present = {(replicate, branch) for replicate, branch in zip(losses["replicate"], losses["branch"], strict=True)}
    assert (1, "+verse") not in present
    assert len(present) == 7
    assert table_of(validated)["pearson"].notna().all()


def test_next_call_goes_to_the_next_round_and_keeps_the_rows_of_the_first(validated: Path) -> None:
    first = table_of(validated)
    run_in(validated, "validate", validate=VALIDATE)
    both = table_of(validated)
    assert sorted(both["round"].unique()) == [0, 1]
    pd.testing.assert_frame_equal(both[both["round"] == 0].reset_index(drop=True), first)


def test_end_of_the_run_shows_the_table_and_what_to_set(validated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate(validated)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("Mean of tasks Pearson Spearman") for line in lines)
    assert any(line.startswith("two replicates") for line in lines)
    assert "influence.calibration=" in "".join(lines) or "No candidate predicts" in " ".join(lines)


def test_mlflow_has_metrics_tables_and_figures(validated_project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{validated_project}/mlflow.db")
    runs = runs_of(validated_project, "one")
    (run,) = [run for run in runs if run.data.tags["pipelines"] == "validate" and "round" not in run.data.tags]
    assert {"validate/identity/pearson", "validate/kfac-horizon-1-horizon/slope"} <= run.data.metrics.keys()
    assert "validate/adam-damped-0.1-relative/ceiling" in run.data.metrics
    assert run.data.params["validate.replicates"] == "2"
    figures = {file.path for file in client.list_artifacts(run.info.run_id, "figures")}
    assert {"figures/round_0_validation.png", "figures/round_0_candidates.png"} <= figures
    tables = {file.path for file in client.list_artifacts(run.info.run_id, "tables/round_0")}
    assert {f"tables/round_0/{name}.parquet" for name in ("validation", "predictions", "branch_losses")} <= tables


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stp": 0.1}, "Did you mean 'validate.step'"),
        ({"candidates": [{"dampng": 1.0}]}, r"Did you mean 'validate\.candidates\.0\.damping'"),
        ({"candidates": [{}, {}]}, "is there more than once"),
        ({"step": 1.0}, r"validate\.step: input should be less than 1"),
        ({"train": {"optimizer": "muon"}}, "'adam damped 0.1 .*needs the second moments of AdamW"),
    ],
)
def test_mistakes_are_refused_before_any_branch(
    validated: Path, trained: list[str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        validate(validated, **changes)
    assert trained == []


def test_validating_a_round_that_was_not_trained_says_what_to_run(validated: Path) -> None:
    with pytest.raises(UserError, match="kedro run --pipelines train_chunk --params round=2"):
        validate(validated, round=2)
