"""Decisions by second order in real runs: measured, guarded, with branches and without."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.pipelines.conftest import run_in
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import TaskItems
from tikmix_pipeline.parameters.measurement import TaskLossParameters
from tikmix_pipeline.pipelines.optimize.nodes import bytes_by_target
from tikmix_pipeline.session.kedro_session import UserError


def outputs(project: Path, experiment: str, number: int) -> Path:
    return project / "data" / "07_model_output" / experiment / f"round_{number}"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


BRANCHED = {
    "method": "response",
    "branches": 4,
    "branch_tokens": 256,
    "branch_items": 8,
    "workers": 1,
    # by it no guardrail holds the mixture that branches are about, so that they are the same under another one
    "heldout_response": "second_order",
}


@pytest.fixture(scope="module")
def responding(tmp_path_factory: pytest.TempPathFactory, finished_project: Path) -> Path:
    """Two rounds that decide by second order, the second on four branches."""
    handed = {"exports": ["megatron"]}
    run_in(finished_project, experiment="second", optimize={"method": "response"}, reweight=handed)
    run_in(
        finished_project,
        experiment="branched",
        optimize=BRANCHED,
        tikmix={"rounds": 1},
        reweight=handed,
    )
    return finished_project


def test_domains_are_multiplied_with_each_other_and_the_decision_says_what_text_pays(responding: Path) -> None:
    products = pd.read_parquet(outputs(responding, "second", 0) / "domain_products.parquet")
    assert list(products) == ["text", "domain", "influence", "stderr", "curved", "curved_stderr"]
    assert len(products) == 9
    record = read(outputs(responding, "second", 1) / "decision.json")["second_order"]
    assert record["saturation"] == 0.85
    assert set(record["heldout_gain"]) == {"code", "prose", "verse"}
    assert [one["name"] for one in record["guardrails"]] == ["heldout"]
    assert "branches" not in record


def test_gains_are_shares_without_branches_and_in_nats_with_them(responding: Path) -> None:
    gains = read(outputs(responding, "second", 1) / "gains.json")
    assert {gain["unit"] for gain in gains.values()} == {"share"}
    assert all(-1.5 <= gain["gain"] <= 1.001 for gain in gains.values())
    branched = read(outputs(responding, "branched", 0) / "gains.json")
    is_told = "scale" in read(outputs(responding, "branched", 0) / "decision.json")["second_order"]
    assert {gain["unit"] for gain in branched.values()} == {"nats" if is_told else "share"}


def test_branches_are_kept_and_say_what_the_decision_is_expected_to_gain(responding: Path) -> None:
    folder = outputs(responding, "branched", 0)
    ratios, losses = (pd.read_csv(folder / "response" / f"{name}.csv") for name in ("ratios", "losses"))
    assert ratios["run"].tolist() == losses["run"].tolist()
    assert ratios["run"].iloc[0] == "reference"
    assert 3 <= len(ratios) <= 4
    assert list(losses)[1:] == ["quiz", "riddle", "heldout-code", "heldout-prose", "heldout-verse"]
    assert losses.iloc[:, 1:].gt(0).all(axis=None)
    record = read(folder / "decision.json")["second_order"]
    assert record["branches"] == len(ratios)
    if "scale" in record:  # else four short branches told nothing, and say so
        assert record["scale"] > 0
        assert record["expected"]["half_width"] > 0
        assert record["expected"]["level"] == 0.9
    cost = read(folder / "response" / "cost.json")
    assert cost["branches"] == len(ratios)


def test_another_guardrail_trains_no_branch_again_and_measures_nothing(
    responding: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(
        responding,
        "optimize",
        experiment="branched",
        optimize=BRANCHED | {"guardrails": {"heldout": {"tolerance": 0.5}, "code": {"tolerance": 0.2}}},
        tikmix={"rounds": 1},
        round=0,
    )
    record = read(outputs(responding, "branched", 0) / "decision.json")["second_order"]
    assert [(one["name"], one["tolerance"]) for one in record["guardrails"]] == [("heldout", 0.5), ("code", 0.2)]
    assert "branches:" not in capsys.readouterr().err


def test_what_held_out_text_pays_is_the_first_thing_said(responding: Path) -> None:
    notes = read(outputs(responding, "second", 1) / "decision.json")["guardrail_notes"]
    summary = read(responding / "data" / "08_reporting" / "second" / "summary.json")
    assert summary["guardrail_notes"] == notes
    assert notes[0].startswith("Held-out text is expected to")


def test_guardrails_in_every_unit_are_told_by_what_was_measured(responding: Path) -> None:
    """Bits per byte by the bytes of the corpus and of the tasks, standard errors by the chunks."""
    units = {
        "heldout": "bits_per_byte",
        "code": "stderr",
        "quiz": "bits_per_byte",
        "prose": "percent",
        "riddle": "stderr",
    }
    optimize = BRANCHED | {"guardrails": {name: {"tolerance": 5.0, "unit": unit} for name, unit in units.items()}}
    told = read(outputs(responding, "branched", 0) / "decision.json")["second_order"]
    run = {"experiment": "branched", "optimize": optimize, "tikmix": {"rounds": 1}, "round": 0}
    if "scale" not in told:
        with pytest.raises(UserError, match="nothing says what a gain is in nats at this checkpoint"):
            run_in(responding, "optimize", **run)
        return
    run_in(responding, "optimize", **run)
    found = {
        one["name"]: one
        for one in read(outputs(responding, "branched", 0) / "decision.json")["second_order"]["guardrails"]
    }
    assert {name: one["unit"] for name, one in found.items()} == units
    corpus = TokenShards.open(responding / "data" / "03_primary" / "tiny", verify=False)
    per_byte = sum(1 / corpus.bytes_per_token(domain) for domain in corpus.domains) / 3
    strength = found["heldout"]["strength"]
    assert strength not in (1.0, 1.75), "that which branches have measured, no rule's"
    assert found["heldout"]["slack"] * strength * told["scale"] == pytest.approx(5.0 * math.log(2) / per_byte)
    products = pd.read_parquet(outputs(responding, "branched", 0) / "domain_products.parquet")
    assert 0 < found["code"]["slack"] <= 5.0 * products.loc[products["text"] == "code", "stderr"].sum()
    assert found["riddle"]["slack"] > 0


def test_bytes_of_a_target_are_those_of_what_it_reads(finished_project: Path) -> None:
    """Guardrails in bits per byte may be on a domain, on a task, and on held-out text that is a target."""
    corpus = TokenShards.open(finished_project / "data" / "03_primary" / "tiny", verify=False)
    kinds = TaskLossParameters(task_loss={"riddle": "answer"})
    sizes = bytes_by_target(corpus, ["quiz", "riddle", "heldout-code"], kinds)
    tasks = TaskItems.open(corpus.tasks_file)
    assert sizes["heldout-code"] == sizes["code"] == corpus.bytes_per_token("code")
    assert sizes["quiz"] == tasks.bytes_per_token("quiz", "query", "text")
    assert sizes["riddle"] == tasks.bytes_per_token("riddle", "query", "answer")


def test_a_search_is_held_by_the_guardrails_of_direct(responding: Path) -> None:
    """Whatever the surrogate says of tasks, it says nothing of held-out text."""
    guardrails = {"heldout": None, "each_domain": {"tolerance": 0.05}}
    run_in(
        responding,
        experiment="searched",
        optimize={"method": "response", "guardrails": guardrails, "pareto": False},
        tikmix={"rounds": 1, "strategy": "surrogate"},
        sweep={"candidates": 24, "surrogate": "ridge", "compared": ["linear"], "require_better": False, "folds": 3},
    )
    folder = outputs(responding, "searched", 0)
    direct, found = read(folder / "decision.json"), read(folder / "sweep" / "decision.json")
    assert found["guardrail_notes"][0].startswith("'")
    wide = pd.read_parquet(folder / "domain_products.parquet").pivot(index="text", columns="domain", values="curved")
    reference = pd.Series(direct["reference"])
    unit = max(map(abs, direct["second_order"]["mean_influence"].values()))
    for weights in (direct["weights"], found["searched_weights"]):
        moved, summed = pd.Series(weights) - reference, pd.Series(weights) + reference
        bent = 0.85 / 2 * (moved @ wide @ summed)
        of_tasks = moved @ pd.Series(direct["second_order"]["mean_influence"]) - bent
        for one in direct["second_order"]["guardrails"]:
            gain = moved @ pd.Series(one["influence"]) - bent
            assert gain + one["share"] * of_tasks >= -1e-5 * unit or found["kept"] == "direct"


def test_the_paper_s_decision_may_be_anchored_to_the_mixture_of_n_gram_models(finished_project: Path) -> None:
    own = {"baselines": {"ngram": {"max_tokens": 4000, "iterations": 50}}, "tikmix": {"rounds": 1}}
    run_in(
        finished_project, experiment="anchored", optimize={"anchor": "ngram", "entropy": 100.0, "pareto": False}, **own
    )
    folder = outputs(finished_project, "anchored", 0)
    ngram, found = read(folder / "anchor.json")["weights"], read(folder / "decision.json")
    assert found["anchor"] == pytest.approx({name: 0.99 * one + 0.01 / 3 for name, one in ngram.items()})
    assert found["weights"] == pytest.approx(found["anchor"], abs=0.05)
    for alone in read(folder.parent / "asked.json")["tasks"].values():
        assert alone == pytest.approx(found["anchor"], abs=0.05), "a task alone is anchored, too"
    assert not (outputs(finished_project, "one", 0) / "anchor.json").exists()


def test_the_paper_s_method_multiplies_no_domains(finished_project: Path) -> None:
    assert not (outputs(finished_project, "one", 0) / "domain_products.parquet").exists()


def test_streamed_gradients_are_refused_where_the_domains_are_to_meet(finished_project: Path) -> None:
    with pytest.raises(UserError, match=r"influence\.gradients=stream: optimize\.method=response"):
        run_in(
            finished_project,
            "influence",
            experiment="one",
            optimize={"method": "response"},
            influence={"gradients": "stream"},
            round=0,
        )


def test_a_guardrail_on_nothing_is_refused_with_what_there_is(finished_project: Path) -> None:
    with pytest.raises(UserError, match=r"optimize\.guardrails names 'proze'.*Did you mean 'prose'"):
        run_in(
            finished_project,
            experiment="wrong",
            optimize={"method": "response", "guardrails": {"proze": {"tolerance": 1.0}}},
        )
