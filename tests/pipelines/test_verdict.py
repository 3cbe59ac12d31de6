"""The verdict of the main job: the run against keeping the prior, trained for real on a small project."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.pipelines.conftest import run_in
from tests.pipelines.test_tikmix import made_when, outputs
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.lm import trainer
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.parameters import TrainParameters
from tikmix_pipeline.parameters.training import FinalEvaluationParameters, LoadParameters
from tikmix_pipeline.pipelines.train_chunk.nodes import FinalEvaluationView, evaluate_by_item
from tikmix_pipeline.report.verdict import Verdict, in_a_sentence
from tikmix_pipeline.session.kedro_session import UserError

THREE = {"rounds": 3}
SKEWED = {"code": 0.8, "prose": 0.1, "verse": 0.1}


def models(project: Path, experiment: str) -> Path:
    return project / "data" / "06_models" / experiment


def verdict_of(project: Path, experiment: str = "one") -> Verdict:
    path = project / "data" / "08_reporting" / experiment / "verdict.json"
    return Verdict.from_json(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def judged(finished_project: Path) -> Path:
    """A run of three rounds with its verdict, and the same on the prior."""
    run_in(finished_project, experiment="judged", tikmix=THREE)
    run_in(finished_project, experiment="on-prior", tikmix=THREE | {"strategy": "prior"})
    return finished_project


def test_what_is_compared_with_is_to_the_bit_a_run_that_keeps_the_prior(judged: Path) -> None:
    for number in (1, 2):
        kept, prior = (
            models(judged, "judged") / "kept" / f"round_{number}",
            models(judged, "on-prior") / f"round_{number}",
        )
        for name in ("model.safetensors", "training_state.safetensors", "training_state.json"):
            assert (kept / name).read_bytes() == (prior / name).read_bytes(), name
    for name in ("final_evaluation", "final_items"):
        kept_table = pd.read_parquet(outputs(judged, "judged") / "kept" / f"{name}.parquet")
        pd.testing.assert_frame_equal(kept_table, pd.read_parquet(outputs(judged, "on-prior") / f"{name}.parquet"))


def test_the_run_itself_is_what_it_would_be_without_a_verdict(judged: Path) -> None:
    run_in(judged, experiment="unjudged", tikmix=THREE | {"verdict": False})
    for number in range(3):
        ours, other = (
            models(judged, name) / f"round_{number}" / "model.safetensors" for name in ("judged", "unjudged")
        )
        assert ours.read_bytes() == other.read_bytes()


def test_the_difference_is_that_of_the_final_scores_of_whole_items(judged: Path) -> None:
    ours, priors = (
        pd.read_parquet(outputs(judged, name) / "final_evaluation.parquet").set_index(["kind", "measure", "name"])
        for name in ("judged", "on-prior")
    )
    change = (ours["bits_per_byte"] - priors["bits_per_byte"]).sort_index()
    found = verdict_of(judged, "judged")
    assert found.mean_of_tasks is not None
    assert found.mean_of_tasks.difference == pytest.approx(change["task", "text"].mean(), abs=1e-12)
    assert found.mean_of_heldout.difference == pytest.approx(change["domain", "text"].mean(), abs=1e-12)
    assert {task: one.difference for task, one in found.tasks.items()} == pytest.approx(dict(change["task", "text"]))


def test_deciding_costs_what_the_measurements_took_that_were_trained_on(judged: Path) -> None:
    measured = [
        json.loads((outputs(judged, "judged") / f"round_{number}" / "measurement.json").read_text())["cost"]["flops"]
        for number in (0, 1)
    ]
    found = verdict_of(judged, "judged")
    assert found.method_flops == sum(measured)
    assert found.training_flops > 0


def test_a_run_ends_with_its_verdict(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_in(project)
    blocks = capsys.readouterr().out.strip().split("\n\n")
    last = " ".join(blocks[-1].split())
    assert last == " ".join(in_a_sentence(verdict_of(project)).split())
    assert last.split(" than ")[0].split(" with ")[0] in {"Better", "Worse", "Level"}
    assert any(block.startswith("Alone, each would get next") for block in blocks)


@pytest.mark.parametrize(
    ("experiment", "tikmix"),
    [
        ("silent", {"verdict": False}),
        ("prior", {"strategy": "prior"}),
        ("single", {"rounds": 1}),
    ],
)
def test_without_a_verdict_there_is_nothing_of_it(
    finished_project: Path, capsys: pytest.CaptureFixture[str], experiment: str, tikmix: dict[str, Any]
) -> None:
    run_in(finished_project, experiment=experiment, tikmix=tikmix)
    for layer in ("06_models", "07_model_output", "08_reporting"):
        folder = finished_project / "data" / layer / experiment
        assert not [path for path in folder.rglob("*") if "kept" in path.parts or path.name.startswith("verdict")]
    assert "keeping the prior" not in capsys.readouterr().out


def test_a_baseline_is_judged_too_and_asks_no_task(finished_project: Path) -> None:
    run_in(finished_project, experiment="even", tikmix={"strategy": "uniform", "prior": SKEWED})
    assert verdict_of(finished_project, "even").method_flops == 0
    assert not (outputs(finished_project, "even") / "asked.json").exists()


def test_tasks_that_do_not_decide_only_judge(finished_project: Path) -> None:
    run_in(finished_project, experiment="quizzed", influence={"tasks": ["quiz"]})
    found = verdict_of(finished_project, "quizzed")
    assert found.deciding == ("quiz",)
    assert found.mean_of_tasks == found.tasks["quiz"]
    assert found.mean_of_judges == found.tasks["riddle"]
    assert list(json.loads((outputs(finished_project, "quizzed") / "asked.json").read_text())["tasks"]) == ["quiz"]


def test_interrupted_training_on_the_prior_goes_on_where_it_stood(
    project: Path, judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainer._step
    last = 2 * 6 + 5  # of the third round's six

    def interrupted(state: Any, *arguments: Any) -> None:
        if (project / "data/07_model_output/cut/final_evaluation.parquet").exists() and state.step == last:
            raise KeyboardInterrupt
        step(state, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_step", interrupted)
        with pytest.raises(UserError, match="Interrupted"):
            run_in(project, experiment="cut", tikmix=THREE)
    folder = models(project, "cut")
    assert (folder / "kept" / "round_2.resume").is_dir()
    before = made_when(folder)
    steps: list[int] = []

    def counted(state: Any, *arguments: Any) -> None:
        steps.append(state.step)
        step(state, *arguments)

    monkeypatch.setattr(trainer, "_step", counted)
    run_in(project, experiment="cut", tikmix=THREE)
    assert steps == [16, 17], "what was saved is not trained again"
    assert {name: when for name, when in made_when(folder).items() if name in before} == before
    for name in ("model.safetensors", "training_state.json"):
        assert (folder / "kept/round_2" / name).read_bytes() == (
            models(judged, "on-prior") / "round_2" / name
        ).read_bytes()
    assert not list(folder.rglob("*.resume*"))


def test_another_decision_leaves_the_training_on_the_prior_as_it_is(project: Path) -> None:
    kept = models(project, "one") / "kept"
    before, was = made_when(kept), verdict_of(project)
    run_in(project, optimize={"bounds": {"verse": {"min": 0.5}}})
    assert made_when(kept) == before
    assert verdict_of(project) != was


def test_the_last_round_is_scored_on_no_more_items_and_windows_than_are_asked_for(judged: Path) -> None:
    train = TrainParameters(context=32, final_items=5, final_windows=3, device="cpu")
    view = FinalEvaluationView(model=LoadParameters(), train=train.narrowed(FinalEvaluationParameters))
    corpus = TokenShards.open(judged / "data" / "03_primary" / "tiny", verify=False)
    scores, items = evaluate_by_item(view, Checkpoint(models(judged, "judged") / "round_2"), corpus)
    counts = items.groupby(["kind", "measure", "name"]).size()
    assert set(counts["task"]) == {5}
    assert set(counts["domain"]) == {3}
    assert scores["bits_per_byte"].notna().all()
