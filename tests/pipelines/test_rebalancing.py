"""Influence is measured in balance with the prior; the run itself goes on from its own checkpoint."""

import json
from pathlib import Path

import pandas as pd

from tests.pipelines.conftest import run_in
from tikmix_pipeline.files import sha256_of_file
from tikmix_pipeline.lm.checkpoint import Checkpoint


def outputs(project: Path, experiment: str, number: int) -> Path:
    return project / "data" / "07_model_output" / experiment / f"round_{number}"


def test_the_first_round_is_measured_as_it_is_and_later_ones_in_balance(finished_project: Path) -> None:
    assert not (outputs(finished_project, "one", 0) / "balanced").exists()
    balanced = Checkpoint(outputs(finished_project, "one", 1) / "balanced")
    own = Checkpoint(finished_project / "data" / "06_models" / "one" / "round_1")
    prior = json.loads((outputs(finished_project, "one", 0) / "mixture.json").read_text())["weights"]
    assert balanced.step == own.step + 2  # 256 tokens in steps of 4 x 32
    assert balanced.training_state()["stream"]["weights"] == prior
    assert own.training_state()["stream"]["weights"] != prior


def test_rebalancing_changes_what_is_measured_and_not_what_is_trained(project: Path) -> None:
    weights = project / "data" / "06_models" / "one" / "round_1" / "model.safetensors"
    trained = sha256_of_file(weights)
    before = pd.read_parquet(outputs(project, "one", 1) / "influence.parquet")
    run_in(project, "influence", round=1, influence={"rebalance_steps": 0})
    after = pd.read_parquet(outputs(project, "one", 1) / "influence.parquet")
    assert sha256_of_file(weights) == trained
    assert not before["influence"].equals(after["influence"])


def test_what_rebalancing_costs_is_counted(finished_project: Path) -> None:
    costs = [
        json.loads((outputs(finished_project, "one", number) / "measurement.json").read_text())["cost"]["parts"]
        for number in (0, 1)
    ]
    assert [cost["rebalancing"]["tokens"] for cost in costs] == [0, 256]


def test_under_the_prior_nothing_is_rebalanced(project: Path) -> None:
    run_in(project, experiment="kept", tikmix={"strategy": "prior"})
    assert not (outputs(project, "kept", 1) / "balanced").exists()
