"""A run with three tasks, of which one offers a choice and is measured by it."""

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from tests.pipelines.conftest import run_in, write_lines
from tests.pipelines.test_tracking import parent_of
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.influence.samples import target_samples
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.evaluation import text_losses
from tikmix_pipeline.parameters import InfluenceParameters
from tikmix_pipeline.parameters.training import LoadParameters
from tikmix_pipeline.session.kedro_session import UserError

TASKS = {"poll": {"sources": [{"kind": "files", "path": "texts/poll.jsonl"}]}}
CHANGES: dict[str, Any] = {
    "experiment": "poll",
    "corpus": {"name": "poll", "tasks": TASKS},
    "influence": {"task_loss": {"poll": "choice"}},
}


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory, untouched_project: Path) -> Path:
    project = Path(shutil.copytree(untouched_project, tmp_path_factory.mktemp("polled") / "project"))
    generator = random.Random(1)  # noqa: S311

    def words(count: int) -> str:
        return " ".join("".join(generator.choices("ghijkl", k=5)) for _ in range(count))

    rows = [
        {
            "question": f"{words(6)}?",
            "options": f"A. {words(2)}\nB. {words(1)}\nC. {words(3)}",
            "answer": generator.choice("ABC"),
        }
        for _ in range(40)
    ]
    write_lines(project / "texts" / "poll.jsonl", rows)
    run_in(project, **CHANGES)
    return project


def test_choices_are_scored_after_every_round_and_at_the_end(polled: Path) -> None:
    results = polled / "data" / "07_model_output" / "poll"
    for path in (results / "round_0" / "evaluation.parquet", results / "final_evaluation.parquet"):
        table = pd.read_parquet(path)
        choices = table[table["measure"] == "choice"]
        assert choices["name"].tolist() == ["poll"]
        assert choices["bits_per_byte"].isna().all()
        # a model that has seen a few hundred tokens knows next to nothing of three options, which differ in length
        assert choices["nats_per_item"].iloc[0] == pytest.approx(math.log(3), abs=1)
        others = table[table["measure"] != "choice"]
        assert others["nats_per_item"].isna().all()
        assert (others["bits_per_byte"] > 0).all()


def test_influence_is_measured_on_the_choices_of_that_task_alone(polled: Path) -> None:
    measurement = json.loads((polled / "data/07_model_output/poll/round_0/measurement.json").read_text())
    assert measurement["task_tokens"]["poll"] == 8
    assert measurement["task_tokens"]["quiz"] > 8 * 8
    corpus = TokenShards.open(polled / "data/03_primary/poll")
    chosen = InfluenceParameters(task_loss={"poll": "choice"}, items_per_task=8)
    model = Checkpoint(polled / "data/06_models/poll/round_0").model(LoadParameters())
    losses = text_losses(model, target_samples(corpus, chosen, context=32), device="cpu")
    assert measurement["task_loss"] == pytest.approx({name: loss.nats / loss.tokens for name, loss in losses.items()})
    influence = pd.read_parquet(polled / "data/07_model_output/poll/round_0/influence.parquet")
    assert set(influence["task"]) == {"poll", "quiz", "riddle"}
    assert influence["influence"].notna().all()


def test_choices_are_tracked_beside_bits_per_byte(polled: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{polled}/mlflow.db")
    run = parent_of(polled, "poll")
    assert {"final_choice/poll", "final_bpb/poll", "final_bpb/mean_of_tasks"} <= run.data.metrics.keys()
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "choice/poll")] == [0, 1]
    summary = json.loads((polled / "data/08_reporting/poll/summary.json").read_text())
    assert list(summary["final_choice"]) == ["poll"]
    assert len(summary["choice"]) == 2


def test_another_loss_measures_its_own_task_alone_anew(polled: Path) -> None:
    gradients = polled / "data" / "07_model_output" / "poll" / "round_0" / "gradients"
    before = {path: path.stat().st_mtime_ns for path in gradients.rglob("*.safetensors")}
    run_in(polled, "influence", round=0, **CHANGES | {"influence": {"task_loss": {"poll": "answer"}}})
    changed = {path.parent.name for path, at in before.items() if path.stat().st_mtime_ns != at}
    assert changed == {"task-poll"}


def test_a_task_without_options_is_refused_before_anything_is_trained(polled: Path) -> None:
    changes = CHANGES | {"experiment": "new", "influence": {"task_loss": {"default": "choice"}}}
    with pytest.raises(UserError, match="'choice' for the task 'quiz', but none of its query items has options"):
        run_in(polled, **changes)
    assert not list(polled.glob("data/06_models/new*/*"))


def test_a_tolerance_in_bits_per_byte_of_a_choice_is_refused_before_anything_is_trained(polled: Path) -> None:
    guardrails = {"poll": {"tolerance": 0.1, "unit": "bits_per_byte"}}
    changes = CHANGES | {
        "experiment": "new",
        "optimize": {"method": "response", "branches": 4, "guardrails": guardrails},
    }
    with pytest.raises(UserError, match=r"guardrails\.poll\.unit is bits_per_byte, but .* has no bytes"):
        run_in(polled, **changes)
    assert not list(polled.glob("data/06_models/new*/*"))


def test_choices_are_none_of_the_items_that_a_verdict_compares(polled: Path) -> None:
    items = pd.read_parquet(polled / "data/07_model_output/poll/final_items.parquet")
    assert set(items["measure"]) == {"answer", "text"}
    assert items["bytes"].notna().all()
    verdict = json.loads((polled / "data/08_reporting/poll/verdict.json").read_text())
    assert set(verdict["tasks"]) == {"poll", "quiz", "riddle"}
