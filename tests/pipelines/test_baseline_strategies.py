"""Every baseline as `tikmix.strategy`, run for real on a small project."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.conftest import run_in
from tests.pipelines.test_tikmix import mixture, outputs
from tikmix_pipeline.corpus.shards import TokenShards

DOMAINS = ["code", "prose", "verse"]
SKEWED = {"code": 0.6, "prose": 0.2, "verse": 0.2}
SMALL: dict[str, Any] = {
    "ngram": {"max_tokens": 4000, "iterations": 50},
    "doremi": {"tokens": 512},
    "regmix": {"proxies": 12, "tokens": 256, "items": 8, "workers": 1, "surrogate": "ridge", "samples": 500, "top": 8},
    "mixmin": {"tokens": 256, "items": 8, "workers": 1},
    "dga": {"tokens": 256, "items": 8, "every": 1, "rows": 2, "drawn_items": 4, "eta": 1000.0, "beta": 0.5},
    "fastmix": {"tokens": 256, "items": 8, "rows": 2, "drawn_items": 4},
}
STRATEGIES = ["uniform", "proportional", "unimax", "ngram", "regmix", "doremi", "mixmin", "dga", "fastmix"]
TRAINING = {"regmix", "doremi", "mixmin", "dga", "fastmix"}
"""Strategies that pass text through a model."""


def told(strategy: str) -> dict[str, Any]:
    """Parameters of a run on a prior that no baseline would choose, from which it may not move far by a measurement."""
    tikmix = {"strategy": strategy, "rounds": 3, "prior": SKEWED}
    return {"experiment": f"by-{strategy}", "tikmix": tikmix, "baselines": SMALL, "optimize": {"max_change": 0.01}}


@pytest.fixture(scope="module", params=STRATEGIES)
def strategy(request: pytest.FixtureRequest, finished_project: Path) -> str:
    """A baseline that the experiment `by-<baseline>` of `finished_project` has been run under."""
    name: str = request.param
    run_in(finished_project, **told(name))
    return name


def decided(project: Path, strategy: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((outputs(project, f"by-{strategy}") / "round_0" / "baseline.json").read_text())
    return found


def test_baseline_is_decided_once_and_kept(finished_project: Path, strategy: str) -> None:
    mixtures = [mixture(finished_project, number, f"by-{strategy}") for number in range(4)]
    assert [found["strategy"] for found in mixtures] == ["prior", strategy, strategy, strategy]
    assert mixtures[0]["weights"] == SKEWED
    found = decided(finished_project, strategy)
    assert mixtures[1]["weights"] == pytest.approx(found["weights"], abs=1e-6)
    assert sum(mixtures[1]["weights"].values()) == pytest.approx(1, abs=1e-12)
    assert mixtures[1]["weights"] == mixtures[2]["weights"] == mixtures[3]["weights"]
    decisions = outputs(finished_project, f"by-{strategy}").glob("round_*/*.json")
    assert {f"{path.parent.name}/{path.name}" for path in decisions if "recipe" not in path.name} == {
        "round_0/baseline.json",
        *(f"round_{number}/mixture.json" for number in range(4)),
        *(f"round_{number}/stock.json" for number in range(3)),
    }


def test_later_rounds_train_under_the_baseline(finished_project: Path, strategy: str) -> None:
    for number in (1, 2):
        folder = finished_project / "data" / "06_models" / f"by-{strategy}" / f"round_{number}"
        state = json.loads((folder / "training_state.json").read_text())
        assert state["stream"]["weights"] == mixture(finished_project, 1, f"by-{strategy}")["weights"]
    summary = finished_project / "data" / "08_reporting" / f"by-{strategy}" / "summary.json"
    assert json.loads(summary.read_text())["final_bits_per_byte"]["task"]


def test_baseline_measures_no_influence(finished_project: Path, strategy: str) -> None:
    names = {path.name for path in outputs(finished_project, f"by-{strategy}").rglob("*")}
    assert not names & {"influence.parquet", "gradients", "factors", "measurement.json", "decision.json"}


def test_baseline_says_what_it_cost(finished_project: Path, strategy: str) -> None:
    cost = decided(finished_project, strategy)["cost"]
    assert (cost["tokens"] > 0) == (cost["flops"] > 0) == (strategy in TRAINING)


def test_stages_by_hand_decide_and_record_the_same_bits(finished_project: Path, strategy: str) -> None:
    folder = outputs(finished_project, f"by-{strategy}")
    files = [folder / "round_0" / "baseline.json", folder / "round_1" / "mixture.json"]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    for stage in ("optimize", "reweight"):
        run_in(finished_project, stage, **told(strategy))
    assert [file.read_bytes() for file in files] == before


def test_rules_know_nothing_but_the_text_that_there_is(finished_project: Path, strategy: str) -> None:
    """And `optimize.max_change`, which is for measurements at a point, does not bind them."""
    shards = TokenShards.open(finished_project / "data" / "03_primary" / "tiny")
    total = sum(shards.tokens(domain) for domain in DOMAINS)
    even = dict.fromkeys(DOMAINS, 1 / 3)
    by_rule = {
        "uniform": even,
        "unimax": even,  # there is text enough
        "proportional": {domain: shards.tokens(domain) / total for domain in DOMAINS},
    }
    if strategy in by_rule:
        assert mixture(finished_project, 1, f"by-{strategy}")["weights"] == pytest.approx(by_rule[strategy], abs=1e-6)
    else:
        assert mixture(finished_project, 1, f"by-{strategy}")["weights"] != pytest.approx(SKEWED, abs=0.02)


def test_whole_loop_by_hand_gives_the_same_bits(finished_project: Path) -> None:
    by_hand = told("unimax") | {"experiment": "baseline-by-hand"}
    for stage in ("train_chunk", "optimize", "reweight", "train_chunk", "reweight"):
        run_in(finished_project, stage, **by_hand)
    run_in(finished_project, **told("unimax"))
    for number in (1, 2):
        assert mixture(finished_project, number, "baseline-by-hand") == mixture(finished_project, number, "by-unimax")
    models = finished_project / "data" / "06_models"
    ours, loops = (models / name / "round_1" / "model.safetensors" for name in ("baseline-by-hand", "by-unimax"))
    assert ours.read_bytes() == loops.read_bytes()
