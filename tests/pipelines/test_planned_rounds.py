"""A run whose length is known: decisions keep text to its end, and rounds that are added make none again."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.conftest import run_in
from tests.pipelines.test_tikmix import made_when, mixture, outputs
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.parameters.base import plain
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.pipelines.cached_node import view_of
from tikmix_pipeline.pipelines.tikmix.pipeline import unrolled
from tikmix_pipeline.pipelines.views import chunk_schedule, remaining_tokens
from tikmix_pipeline.run import Run

FILES = {"sources": [{"kind": "files", "path": "texts.jsonl"}]}
CORPUS = {"domains": {"code": FILES, "web": FILES}, "tasks": {"quiz": FILES}}
CHUNK = 768


def planned(rounds: int, plan: int | None, strategy: str = "direct", **groups: Any) -> Run:
    tikmix = {"rounds": rounds, "planned_rounds": plan, "strategy": strategy}
    values = {"corpus": CORPUS, "tikmix": tikmix, **groups}
    return Run(check_parameters(values), {}, Path(), lambda *_: 0)


def views(run: Run, rounds: int) -> dict[str, Any]:
    """Return the views of all nodes of rounds, by name; those of the corpus look at its files."""
    return {node.name: plain(view_of(node).recorded()) for node in unrolled(run, rounds).nodes if node.namespace}


def test_a_decision_looks_to_the_end_of_the_plan_and_one_chunk_ahead_at_least() -> None:
    run = planned(3, 5)
    chunk = run.parameters.train.tokens_per_chunk
    found = [remaining_tokens(run, number) for number in range(7)]
    assert found == [4 * chunk, 3 * chunk, 2 * chunk, chunk, chunk, chunk, chunk]
    assert {remaining_tokens(planned(3, None), number) for number in range(5)} == {None}


@pytest.mark.parametrize("strategy", ["direct", "surrogate", "uniform", "unimax", "ngram", "regmix", "doremi"])
def test_no_view_changes_where_rounds_are_added_up_to_the_plan(strategy: str) -> None:
    told: dict[str, Any] = {"optimize": {"method": "response", "branches": 3}} if strategy == "direct" else {}
    # where gradients go depends on the disk of a run, which these have none of
    told |= {"influence": {"gradients": "keep"}}
    before, after = views(planned(3, 5, strategy, **told), 3), views(planned(5, 5, strategy, **told), 5)
    assert before == {name: after[name] for name in before}
    assert len(after) > len(before)


def test_the_rate_decays_in_the_last_round_of_the_plan() -> None:
    train = {"decay_tokens": 250_000}
    assert chunk_schedule(planned(3, 5, train=train), 2).decay_steps == 0
    assert chunk_schedule(planned(3, 5, train=train), 4) == chunk_schedule(planned(5, None, train=train), 4)
    assert chunk_schedule(planned(3, None, train=train), 2).decay_steps > 0


def test_unimax_shares_out_the_tokens_of_the_plan() -> None:
    def to_come(rounds: int, plan: int | None) -> float:
        run = planned(rounds, plan, "unimax")
        found = views(run, rounds)["round_0.decide_baseline"]["tokens_to_come"]
        return float(found / run.parameters.train.tokens_per_chunk)

    assert [to_come(3, None), to_come(3, 5), to_come(1, None)] == [2, 4, 1]


@pytest.fixture(scope="module")
def told(finished_project: Path) -> dict[str, Any]:
    """Parameters under which one domain is wanted most, and no domain has text for more than two chunks."""
    shards = TokenShards.open(finished_project / "data" / "03_primary" / "tiny")
    least = min(shards.tokens(domain) for domain in shards.domains)
    return {
        "experiment": "planned",
        "optimize": {"max_epochs": 1.8 * CHUNK / least, "entropy": 0.0, "pareto": False, "uniformity": 0.0},
        "tikmix": {"rounds": 2, "planned_rounds": 4},
    }


def read_beyond(project: Path, told: dict[str, Any], number: int, remaining: int) -> float:
    """Return how many tokens of a domain would be read beyond its limit at the most, were a decided mixture kept."""
    stock = json.loads((outputs(project, told["experiment"]) / f"round_{number}" / "stock.json").read_text())
    weights = mixture(project, number + 1, told["experiment"])["weights"]
    return max(
        stock["consumed"][domain] + weights[domain] * remaining - told["optimize"]["max_epochs"] * available
        for domain, available in stock["available"].items()
    )


def test_rounds_that_are_added_up_to_the_plan_make_nothing_again_and_find_text_left(
    finished_project: Path, told: dict[str, Any]
) -> None:
    run_in(finished_project, **told)
    before = made_when(finished_project / "data")
    run_in(finished_project, **told | {"tikmix": {"rounds": 4, "planned_rounds": 4}})
    after = made_when(finished_project / "data")
    of_rounds = [name for name in before if "/planned/round_" in name]
    assert len(of_rounds) > 2
    assert {name: after[name] for name in of_rounds} == {name: before[name] for name in of_rounds}
    decision = json.loads((outputs(finished_project, "planned") / "round_0" / "decision.json").read_text())
    assert "repetition" in {one["reason"] for one in decision["binding"]}, "what is wanted most is held back"
    for number, left in enumerate((3, 2, 1, 1)):
        # a chunk has less than a row of 32 tokens more than its share
        assert read_beyond(finished_project, told, number, left * CHUNK) < 1 + 32 * number


def test_without_a_plan_the_first_decision_takes_what_later_rounds_would_need(
    finished_project: Path, told: dict[str, Any]
) -> None:
    unplanned = told | {"experiment": "unplanned", "tikmix": {"rounds": 2}}
    run_in(finished_project, **unplanned)
    assert read_beyond(finished_project, unplanned, 0, CHUNK) < 1
    assert read_beyond(finished_project, unplanned, 0, 3 * CHUNK) > CHUNK / 2
    stock = json.loads((outputs(finished_project, "unplanned") / "round_0" / "stock.json").read_text())
    assert "remaining_tokens" not in stock
