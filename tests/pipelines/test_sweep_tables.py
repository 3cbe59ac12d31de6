"""`sweep` over a user's own tables, run for real: neither corpus nor checkpoint is needed."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.pipelines.conftest import run_in
from tests.pipelines.test_bad_input import refusal
from tests.pipelines.test_sweep import FEW, decision
from tests.pipelines.test_tikmix import made_when, outputs


def tables(folder: Path, rows: int = 60) -> dict[str, str]:
    """Write a user's own tables, with names and ids as RegMix has them."""
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(4), size=rows)
    losses = 3 - np.log(weights[:, :2] + 0.7 * weights[:, 1::-1] + 0.05) + 0.01 * generator.normal(size=(rows, 2))
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
    for name in ("metrics", "test_metrics"):
        metrics = pd.read_csv(parameters["table"][name])
        metrics["val_a_loss"] *= -1
        metrics.to_csv(parameters["table"][name], index=False)
    run_in(project, "sweep", experiment="tables", sweep=parameters)
    assert decision(project, 0, "tables")["weights"] != first["weights"]


def test_scores_at_random_decide_nothing_and_what_was_judged_is_kept(tmp_path: Path, project: Path) -> None:
    files = {name: file for name, file in tables(tmp_path).items() if not name.startswith("test_")}
    metrics = pd.read_csv(files["metrics"])
    metrics[["val_a_loss", "val_b_loss"]] = np.random.default_rng(1).normal(size=(len(metrics), 2))
    metrics.to_csv(files["metrics"], index=False)
    parameters = FEW | {"response": "table", "table": files}
    said = refusal(project, "sweep", experiment="tables", sweep=parameters)
    assert "Nothing is decided from noise" in said
    assert "sweep.require_better=false" in said
    assert (outputs(project, "tables") / "round_0" / "sweep" / "quality.parquet").is_file()
    assert not (outputs(project, "tables") / "round_0" / "sweep" / "decision.json").is_file()
    run_in(project, "sweep", experiment="tables", sweep=parameters | {"require_better": False})
    assert decision(project, 0, "tables")["weights"]


def test_the_order_of_rows_and_columns_and_the_seed_change_no_weight(tmp_path: Path, project: Path) -> None:
    files = {name: file for name, file in tables(tmp_path).items() if not name.startswith("test_")}
    parameters = FEW | {"response": "table", "table": files, "surrogate": "xgboost", "compared": ["xgboost"]}
    run_in(project, "sweep", experiment="tables", sweep=parameters)
    first = decision(project, 0, "tables")["weights"]
    for name in ("ratios", "metrics"):
        table = pd.read_csv(files[name]).sample(frac=1, random_state=3)
        table[["index", *table.columns[:0:-1]]].to_csv(files[name], index=False)
    run_in(project, "sweep", experiment="tables", sweep=parameters, seed=5)
    assert decision(project, 0, "tables")["weights"] == first


def test_a_mixture_per_phase_is_decided_where_the_tables_have_one(tmp_path: Path, project: Path) -> None:
    """What matters early is `a`, and late `b`."""
    generator = np.random.default_rng(0)
    early, late = generator.dirichlet(np.ones(3), size=(2, 60))
    losses = 3 - np.log(early[:, 0] + 0.05) - 2 * np.log(late[:, 1] + 0.05)
    columns = [f"phase_{phase}_{name}" for phase in (0, 1) for name in "abc"]
    ratios = pd.DataFrame(np.concatenate([early, late], axis=1), columns=columns).rename_axis("run")
    ratios.to_csv(tmp_path / "ratios.csv")
    pd.DataFrame({"loss": losses + 0.01 * generator.normal(size=60)}).rename_axis("run").to_csv(tmp_path / "scores.csv")
    files = {"ratios": str(tmp_path / "ratios.csv"), "metrics": str(tmp_path / "scores.csv")}
    parameters = FEW | {"response": "table", "table": files, "surrogate": "gp", "objective": "sum"}
    run_in(project, "sweep", experiment="phases", sweep=parameters)
    found = decision(project, 0, "phases")
    for phase in (0, 1):
        assert sum(found["weights"][f"phase_{phase}_{name}"] for name in "abc") == pytest.approx(0.5, abs=1e-5)
    assert found["weights"]["phase_0_a"] > 0.35
    assert found["weights"]["phase_1_b"] > 0.4
    assert "a phase's own weights are 2 times these" in " ".join(found["notes"])


def test_loop_cannot_be_decided_by_tables(project: Path, tmp_path: Path) -> None:
    wrong = {"response": "table", "table": tables(tmp_path)}
    assert "tikmix.strategy=surrogate" in refusal(project, tikmix={"strategy": "surrogate"}, sweep=wrong)
