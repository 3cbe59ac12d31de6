"""The whole loop, run for real on a small project."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.pipelines.conftest import run_in


def outputs(project: Path, experiment: str = "one") -> Path:
    return project / "data" / "07_model_output" / experiment


def mixture(project: Path, number: int, experiment: str = "one") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((outputs(project, experiment) / f"round_{number}" / "mixture.json").read_text())
    return found


def made_when(folder: Path) -> dict[str, int]:
    """When each artifact was written, by its path."""
    recipes = sorted(folder.rglob("*.recipe.json"))
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in recipes}


def test_run_leaves_every_file_of_the_contract(finished_project: Path) -> None:
    data = finished_project / "data"
    for number in range(2):
        assert (data / "06_models" / "one" / f"round_{number}" / "model.safetensors").is_file()
        table = pd.read_parquet(outputs(finished_project) / f"round_{number}" / "influence.parquet")
        assert list(table.columns) == [
            *("task", "domain", "influence", "stderr"),
            *("share", "share_stderr", "effect", "effect_stderr"),
        ]
        assert len(table) == 2 * 3
        assert (data / "08_reporting" / "one" / f"round_{number}_influence.png").is_file()
    assert (data / "03_primary" / "tiny" / "manifest.json").is_file()
    assert (data / "08_reporting" / "one" / "mixture.png").is_file()
    catalog = pd.read_parquet(outputs(finished_project) / "mixtures.parquet")
    assert list(catalog.columns) == ["round", "strategy", "domain", "weight", "epochs", "tokens"]
    assert sorted(set(catalog["round"])) == [0, 1, 2]


def test_what_a_run_ends_with_tells_gains_as_shares_of_the_best_possible(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(project)
    said = " ".join(capsys.readouterr().out.split())
    assert "as a share of the best possible" in said
    assert "nats" not in said
    found = mixture(project, 2)
    assert all(gain <= (1 + 1e-9) * found["gain_scale"][task] for task, gain in found["expected_gain"].items())


def test_mixtures_sum_to_one_and_the_first_is_the_prior(finished_project: Path) -> None:
    mixtures = [mixture(finished_project, number) for number in range(3)]
    assert [found["strategy"] for found in mixtures] == ["prior", "direct", "direct"]
    for found in mixtures:
        assert sum(found["weights"].values()) == pytest.approx(1, abs=1e-12)
    assert mixtures[0]["weights"] == pytest.approx({"code": 1 / 3, "prose": 1 / 3, "verse": 1 / 3}, abs=0.02)


def test_next_round_trains_under_the_mixture_that_was_decided(finished_project: Path) -> None:
    state = json.loads((finished_project / "data/06_models/one/round_1/training_state.json").read_text())
    assert state["stream"]["weights"] == mixture(finished_project, 1)["weights"]


def test_no_resume_point_is_left_behind(finished_project: Path) -> None:
    assert not list((finished_project / "data" / "06_models" / "one").glob("*.resume*"))


def test_rerun_with_the_same_parameters_makes_nothing_again(finished_project: Path) -> None:
    before = made_when(finished_project / "data")
    run_in(finished_project)
    assert made_when(finished_project / "data") == before


def test_same_parameters_give_the_same_bits(finished_project: Path) -> None:
    run_in(finished_project, experiment="twin")
    for number in range(2):
        for name in ("influence.parquet", "train_log.parquet", "mixture.json"):
            ours, twins = (outputs(finished_project, e) / f"round_{number}" / name for e in ("one", "twin"))
            assert ours.read_bytes() == twins.read_bytes(), name
        weights = [finished_project / f"data/06_models/{e}/round_{number}/model.safetensors" for e in ("one", "twin")]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_another_seed_gives_other_weights(finished_project: Path) -> None:
    run_in(finished_project, "train_chunk", experiment="seeded", seed=1)
    ours, other = (finished_project / f"data/06_models/{e}/round_0/model.safetensors" for e in ("one", "seeded"))
    assert ours.read_bytes() != other.read_bytes()


def test_stages_by_hand_give_the_same_bits_as_the_loop(finished_project: Path) -> None:
    for _ in range(2):
        for stage in ("train_chunk", "influence", "optimize", "reweight"):
            run_in(finished_project, stage, experiment="by-hand")
    for number in range(3):
        assert mixture(finished_project, number, "by-hand") == mixture(finished_project, number)
    ours, by_hand = (finished_project / f"data/06_models/{e}/round_1/model.safetensors" for e in ("one", "by-hand"))
    assert ours.read_bytes() == by_hand.read_bytes()


def test_changed_parameter_rebuilds_what_depends_on_it_and_only_that(project: Path) -> None:
    before = made_when(project / "data")
    run_in(project, optimize={"entropy": 0.2})
    after = made_when(project / "data")
    rebuilt = {name for name in after if after[name] != before[name]}
    output, models = "07_model_output/one", "06_models/one"
    assert f"{output}/round_0/decision.json.recipe.json" in rebuilt
    assert f"{models}/round_1.recipe.json" in rebuilt
    kept = {
        f"{models}/round_0.recipe.json",
        f"{output}/round_0/influence.parquet.recipe.json",
        "03_primary/tiny.recipe.json",
    }
    assert not kept & rebuilt


def test_deleted_artifact_is_made_again_with_the_same_bits(project: Path) -> None:
    influence = outputs(project) / "round_0" / "influence.parquet"
    before = influence.read_bytes()
    influence.unlink()
    run_in(project)
    assert influence.read_bytes() == before


def test_more_rounds_keep_the_rounds_that_are_the_same(project: Path) -> None:
    """The decay moves to the new last round, so the old last round is trained again; the first is kept."""
    before = made_when(project / "data")
    run_in(project, tikmix={"rounds": 3})
    after = made_when(project / "data")
    assert after["06_models/one/round_0.recipe.json"] == before["06_models/one/round_0.recipe.json"]
    assert after["06_models/one/round_1.recipe.json"] != before["06_models/one/round_1.recipe.json"]
    assert mixture(project, 3)["round"] == 3


def test_prior_strategy_keeps_the_prior(finished_project: Path) -> None:
    run_in(finished_project, experiment="baseline", tikmix={"strategy": "prior"})
    weights = [mixture(finished_project, number, "baseline")["weights"] for number in range(3)]
    assert weights[0] == weights[1] == weights[2]


def test_after_the_last_deciding_round_the_mixture_is_kept_and_nothing_measured(finished_project: Path) -> None:
    run_in(finished_project, experiment="static", tikmix={"rounds": 3, "decisions": 1})
    mixtures = [mixture(finished_project, number, "static") for number in range(4)]
    assert [found["strategy"] for found in mixtures] == ["prior", "direct", "direct", "direct"]
    assert [found["round"] for found in mixtures] == [0, 1, 2, 3]
    assert mixtures[1] == mixture(finished_project, 1), "the first decision is that of a run that goes on deciding"
    assert mixtures[1]["weights"] == mixtures[2]["weights"] == mixtures[3]["weights"]
    measured = outputs(finished_project, "static").glob("round_*/influence.parquet")
    assert [path.parent.name for path in measured] == ["round_0"]
    state = json.loads((finished_project / "data/06_models/static/round_2/training_state.json").read_text())
    assert state["stream"]["weights"] == mixtures[1]["weights"]


def test_stages_by_hand_keep_what_the_loop_keeps(finished_project: Path) -> None:
    for stage in ("train_chunk", "influence", "optimize", "reweight", "train_chunk", "reweight"):
        run_in(finished_project, stage, experiment="static-by-hand", tikmix={"decisions": 1})
    run_in(finished_project, experiment="static-loop", tikmix={"decisions": 1})
    for number in range(3):
        assert mixture(finished_project, number, "static-by-hand") == mixture(finished_project, number, "static-loop")


def test_no_weight_moves_further_than_max_change_from_round_to_round(finished_project: Path) -> None:
    run_in(finished_project, experiment="careful", optimize={"max_change": 0.05})
    weights = [pd.Series(mixture(finished_project, number, "careful")["weights"]) for number in range(3)]
    moved = [float((after - before).abs().max()) for before, after in pairwise(weights)]
    free = pd.Series(mixture(finished_project, 1)["weights"])
    assert float((free - weights[0]).abs().max()) > 0.06, "unbound it would move further"
    assert moved[0] == pytest.approx(0.05, abs=2e-6)
    assert moved[1] <= 0.05 + 2e-6
    decision = json.loads((outputs(finished_project, "careful") / "round_0" / "decision.json").read_text())
    assert "optimize.max_change" in {held.get("parameter") for held in decision["binding"]}


def test_no_evaluation_item_is_among_those_influence_sees(finished_project: Path) -> None:
    items = pd.read_parquet(finished_project / "data/03_primary/tiny/tasks.parquet")
    keys = [tuple(row.question_ids) + tuple(row.answer_ids) for row in items.itertuples()]
    halves = {half: {k for k, h in zip(keys, items["half"], strict=True) if h == half} for half in set(items["half"])}
    assert set(halves) == {"query", "evaluation"}
    assert not halves["query"] & halves["evaluation"]
