"""The page to try things out beside the report of `remix`, and what is recorded there, held against what comes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.remix_project import outputs, read, remix
from tikmix_pipeline.files import write_json
from tikmix_pipeline.influence.prediction_score import PredictionScore
from tikmix_pipeline.report.whatif_records import WhatIfProblem
from tikmix_pipeline.session.kedro_session import UserError


def test_the_page_to_try_things_out_lies_beside_the_report_and_is_made_of_what_was_decided_on(elsewhere: Path) -> None:
    page = elsewhere / "data/08_reporting/elsewhere/whatif.html"
    assert "decisions of second order" in page.read_text(encoding="utf-8")
    assert not (outputs(elsewhere) / "round_0/problem.json").exists()
    remix(elsewhere, optimize={"method": "response", "task_weights": {"quiz": 2.0}})
    problem = WhatIfProblem.from_json(read(outputs(elsewhere) / "round_0/problem.json"))
    assert (problem.domains, problem.tasks) == (["code", "prose", "verse"], ["quiz", "riddle"])
    assert problem.objective.task_weights == {"quiz": 2.0}
    data = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert data is not None
    content = json.loads(data[1])
    assert content["problem"] == problem.to_json()
    decided = read(outputs(elsewhere) / "round_0/decision.json")["weights"]
    assert content["decided_K"] == [decided[domain] for domain in problem.domains]


def recorded(project: Path, **changes: Any) -> str:
    """Write what the page of the first round would record, and return its path."""
    mixture = read(outputs(project) / "round_1/mixture.json")["weights"]
    bounds = {name: {"low": 0.0, "high": 1.0, "low_parameter": "", "high_parameter": ""} for name in mixture}
    settings = {"task_weights": {}, "tolerances": {}, "entropy": 1.0, "pareto": True, "max_weight": 1.0, "groups": {}}
    gains = {
        "quiz": {"gain": 0.3, "stderr": 0.01, "nats": 40.0},
        "riddle": {"gain": 0.1, "stderr": 0.01, "nats": -40.0},
    }
    about = {"kind": "tikmix-prediction", "version": 1, "experiment": "elsewhere", "round": 0, "checkpoint": "first"}
    of_chunk = {"recorded": "2026-01-01T00:00:00Z", "chunk_tokens": 1_000_000, "objective": 0.0, "mean": None}
    weights = {"current": mixture, "decided": mixture, "mixture": mixture}
    told = {**about, **of_chunk, **weights, "settings": {**settings, "bounds": bounds}, "unit": "share", "gains": gains}
    write_json(project / "prediction.json", {**told, **changes})
    return "prediction.json"


def test_a_prediction_is_held_against_what_the_next_checkpoint_shows(elsewhere: Path) -> None:
    prediction = recorded(elsewhere)
    remix(elsewhere, model={"checkpoint": "checkpoints/second"}, remix={"consumed": None, "prediction": prediction})
    score = PredictionScore.from_json(read(outputs(elsewhere) / "round_1/prediction_score.json"))
    before, after = (read(outputs(elsewhere) / f"round_{number}/measurement.json")["task_loss"] for number in (0, 1))
    assert {task: one.fall for task, one in score.tasks.items()} == {
        task: before[task] - after[task] for task in before
    }
    assert {task: one.is_against for task, one in score.tasks.items()} == {"quiz": True, "riddle": False}
    assert (score.round, score.elsewhere) == (0, 0.0)


def test_a_prediction_for_another_chunk_is_refused(elsewhere: Path) -> None:
    second: dict[str, Any] = {"model": {"checkpoint": "checkpoints/second"}}
    for changes, message in (
        ({"round": 3}, "was recorded after round 3 of 'elsewhere'"),
        ({"experiment": "other"}, "of 'other'"),
        ({"kind": "something"}, "is no prediction that whatif.html has recorded"),
    ):
        with pytest.raises(UserError, match=message):
            remix(elsewhere, **second, remix={"consumed": None, "prediction": recorded(elsewhere, **changes)})
    with pytest.raises(UserError, match="there is no file"):
        remix(elsewhere, **second, remix={"consumed": None, "prediction": "nowhere.json"})
