"""The results page says what the stored tables of its runs give, to the last digit."""

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("results")


def test_every_line_of_the_tables_stands_on_the_page(results: Any) -> None:
    said = set((ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines())
    printed = list(results.page_tables({run: results.read_scores(run) for run in results.RUNS}))
    assert len(printed) > 20
    assert [line for line in printed if line not in said] == []


def test_primary_comparisons_are_those_of_the_protocol(results: Any) -> None:
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    claims = {one.claim for one in results.PRIMARY}
    assert all(f"| {claim}" in protocol for claim in claims)
    assert len(claims) == 5
    first = [one for one in results.PRIMARY if one.claim.startswith("1.")]
    assert {one.level for one in first} == {1 - 0.05 / 2}
    assert set(Counter(one.run for one in first).values()) == {2}


def scores(**means: list[float]) -> pd.DataFrame:
    """Scores of arms by seed: one task of each split, held-out text worse by as much as tasks are better."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "task": task,
            "split": split,
            "bpb": sign * value,
            "bpb_answer": value,
            "choice": 1.0,
        }
        for arm, values in means.items()
        for seed, value in enumerate(values)
        for task, split, sign in (("piqa", "in_domain", 1), ("boolq", "out_of_domain", 1), ("code", "heldout", -1))
    ]
    return pd.DataFrame(rows).assign(train_tokens=100, method_tokens=0, method_flops=0.0)


@pytest.mark.parametrize(("shift", "verdict"), [(-0.5, "yes"), (0.5, "no: the other way"), (0.0, "no")])
def test_a_claim_holds_only_where_its_whole_interval_is_below_its_limit(
    results: Any, shift: float, verdict: str
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, 8)
    noise -= noise.mean()
    table = scores(direct=list(3 + shift + noise), proportional=[3.0] * 8, **{"direct-static": [3.0] * 8})
    tables = dict.fromkeys(results.RUNS, table)
    lines = [line for line in results.claims_table(tables) if "Dynamic" in line and "default corpus, in" in line]
    assert lines == [line for line in lines if line.endswith(f"| {verdict} |")] != []


def test_what_was_not_run_is_said_and_an_arm_that_misses_seeds_is_compared_over_those_that_it_has(results: Any) -> None:
    table = scores(proportional=[3.0, 3.1, 3.2], direct=[2.0, 2.2, 2.1], regmix=[2.5, 2.6])
    lines = list(results.claims_table(dict.fromkeys(results.RUNS, table)))
    (regmix,) = [line for line in lines if "RegMix" in line]
    assert "| 2 |" in regmix
    assert "-0.450" in regmix
    assert all(line.endswith("| not run |") for line in lines if "M is better" in line)


@pytest.mark.parametrize(("tokens", "verdict"), [(5, "yes"), (6, "no: it costs too much")])
def test_as_good_as_regmix_counts_at_a_tenth_of_its_cost_alone(results: Any, tokens: int, verdict: str) -> None:
    table = scores(proportional=[3.0, 3.1, 3.2], direct=[2.0, 2.2, 2.1], regmix=[2.5, 2.6, 2.6])
    table["method_tokens"] = table["arm"].map({"proportional": 0, "direct": tokens, "regmix": 50})
    (line,) = [line for line in results.claims_table(dict.fromkeys(results.RUNS, table)) if "RegMix" in line]
    assert line.endswith(f"| {verdict} |")
