"""The tables of docs/results.md that answer docs/protocol.md, from what its runs left: nothing is trained.

    make bench NAME=results
    python benchmarks/results.py --figure docs/images/results.png

reads the scores of every arm, seed and task in docs/results/tables (`compare.parquet` of each comparison, as CSV) and
prints, as Markdown, what changes where TiKMiX-D mixes in the place of something else, the primary comparisons of the
protocol, a chunk of a pretrained model, and then, run by run, every arm against the reference. A test holds the page to
what is printed. The last line is one JSON object.

Differences are arm minus arm, seed by seed, over the seeds that both have, with Student's intervals.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common import TABLES, markdown_header, markdown_row, print_figures
from pretrained_chunk import pretrained_table
from tikmix_pipeline.report.comparison_scores import (
    HELDOUT,
    IN_DOMAIN,
    MEAN_OF_SPLIT,
    MEAN_OF_TASKS,
    OUT_OF_DOMAIN,
    Measure,
    arm_costs,
    paired_differences,
)
from tikmix_pipeline.report.trade_off_figure import trade_off
from tikmix_pipeline.statistics import PairedDifference

RUNS = {
    "default": "default corpus",
    "extended": "extended corpus",
    "six_rounds": "default corpus, six rounds",
    "default_larger": "default corpus, eight times the parameters",
    "default_guardrail": "default corpus, guardrails of both kinds",
    "extended_guardrail": "extended corpus, guardrails of both kinds",
    "extended_price": "extended corpus, tighter guardrails and floors",
    "extended_floor": "extended corpus, a floor of 0.02 under every domain",
}
"""Names of the stored tables, and what was run."""
SWITCHED = ("default", "extended")
"""The runs that the page begins with."""
REFERENCE = "proportional"
ALTERNATIVES = (REFERENCE, "uniform", "ngram", "paper", "regmix", "mixmin", "fastmix")
"""What a team may mix by that thinks of TiKMiX-D."""
MOST = 0.02
"""Bits per byte that TiKMiX-D may be behind RegMix and still count as equal."""
HELDOUT_LIMIT = 0.10
MEASURES = ("in-domain", "out-of-domain", "gold answers", "right choice", "held-out text")


@dataclass(frozen=True)
class Comparison:
    """One primary comparison of the protocol; `level` is that of its interval, `limit` what its end is held to."""

    claim: str
    run: str
    split: str
    arm: str
    other: str
    limit: float = 0.0
    level: float = 0.95
    by_mean: bool = False
    cost: float | None = None
    """The most that the arm's tokens may be of the other's."""


STATIC = "1. D beats static mixtures"
DYNAMIC = "4. Dynamic is better than static"
GUARDED = "5. The guardrail holds"
PRIMARY = (
    Comparison(STATIC, "extended", OUT_OF_DOMAIN, "direct", "uniform", level=0.975),
    Comparison(STATIC, "extended", OUT_OF_DOMAIN, "direct", "ngram", level=0.975),
    Comparison(STATIC, "default_larger", OUT_OF_DOMAIN, "direct", "uniform", level=0.975),
    Comparison(STATIC, "default_larger", OUT_OF_DOMAIN, "direct", "ngram", level=0.975),
    Comparison(STATIC, "extended_floor", OUT_OF_DOMAIN, "direct-floor", "uniform", level=0.975),
    Comparison(STATIC, "extended_floor", OUT_OF_DOMAIN, "direct-floor", "ngram-floor", level=0.975),
    Comparison(
        "2. D reaches RegMix's quality at a fraction of its cost",
        "default",
        IN_DOMAIN,
        "direct",
        "regmix",
        limit=MOST,
        cost=0.1,
    ),
    Comparison("3. M is better than D", "default", IN_DOMAIN, "sequential", "direct"),
    Comparison("3. M is better than D", "extended", IN_DOMAIN, "sequential", "direct"),
    Comparison(DYNAMIC, "default", IN_DOMAIN, "direct", "direct-static"),
    Comparison(DYNAMIC, "extended", IN_DOMAIN, "direct", "direct-static"),
    Comparison(DYNAMIC, "six_rounds", IN_DOMAIN, "direct", "direct-static", level=0.975),
    Comparison(DYNAMIC, "six_rounds", IN_DOMAIN, "direct-none", "direct-static", level=0.975),
    Comparison(GUARDED, "default", HELDOUT, "direct", REFERENCE, limit=HELDOUT_LIMIT, by_mean=True),
    Comparison(GUARDED, "default_larger", HELDOUT, "direct", REFERENCE, limit=HELDOUT_LIMIT, by_mean=True),
    Comparison(GUARDED, "extended_floor", HELDOUT, "direct-floor", REFERENCE, limit=HELDOUT_LIMIT, by_mean=True),
)

PAIRS = (
    ("paper", "regmix"),
    ("unguarded", "regmix"),
    ("second-order", "paper"),
    ("second-order", "unguarded"),
    ("unpulled", "regmix"),
    ("logarithm", "direct"),
    ("heldout-half", "uniform"),
    ("heldout-half", "ngram"),
    ("heldout-half", "direct"),
    ("heldout-half", "ngram-0.01"),
    ("direct-floor", "uniform"),
    ("direct-floor", "ngram-floor"),
    ("ngram-floor", "uniform"),
    ("mixmin", "regmix"),
    ("mixmin", "second-order"),
    ("paper", "mixmin"),
    ("fastmix", "ngram"),
    ("regmix", "ngram"),
    ("sequential", "regmix"),
    ("sequential", "ngram"),
    ("direct-none", "direct-static"),
)
"""Other pairs that are asked for, where a run has both."""


def main() -> None:
    """Print the tables, and draw the figure if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, help="where to draw what tasks gain and held-out text pays")
    options = parser.parse_args()
    scores = {run: read_scores(run) for run in RUNS}
    print("\n".join(page_tables(scores)))
    if options.figure:
        draw(scores, options.figure)
    found = {f"{one.run}_{one.split}_{one.arm}_minus_{one.other}": difference(scores, one) for one in PRIMARY}
    print_figures({name: one.difference for name, (one, seeds) in found.items() if seeds})


def read_scores(run: str) -> pd.DataFrame:
    """Return a row per arm, seed and task of what was run."""
    return pd.read_csv(TABLES / f"{run}.csv")


def page_tables(scores: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Return the lines of all tables."""
    yield from switching_table(scores)
    yield ""
    yield from claims_table(scores)
    yield ""
    yield from pretrained_table()
    for run, table in scores.items():
        seeds = ", ".join(str(seed) for seed in sorted(set(table["seed"])))
        yield from ["", f"**{RUNS[run].capitalize()}**, seeds {seeds}:", ""]
        yield from arms_table(table)


def switching_table(scores: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Return what a team gains and pays that mixes by D in the place of something else."""
    yield from markdown_header(
        ["`direct` in the place of", "corpus", "tasks that decide", "tasks never seen", "held-out text"]
    )
    for other in ALTERNATIVES:
        for run in SWITCHED:
            if other in set(scores[run]["arm"]):
                in_domain, out_of_domain, *_, heldout = _cells(scores[run], "direct", other)
                yield markdown_row([f"`{other}`", RUNS[run].split()[0], in_domain, out_of_domain, heldout])


def claims_table(scores: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Return the primary comparisons, each with what it found."""
    yield from markdown_header(["claim", "run, judged on", "comparison", "seeds", "difference", "holds"])
    for one in PRIMARY:
        found, seeds = difference(scores, one)
        cells = [one.claim, f"{RUNS[one.run]}, {_words(one.split)}", f"`{one.arm}` minus `{one.other}`", str(seeds)]
        yield markdown_row([*cells, _interval(found, one.level), _verdict(found, one, scores)])


def arms_table(table: pd.DataFrame) -> Iterator[str]:
    """Return every arm against the reference with what deciding took, then D against the others, and other pairs."""
    yield from markdown_header([f"arm minus `{REFERENCE}`", *MEASURES, "tokens", "FLOPs"])
    arms = [arm for arm in dict.fromkeys(table["arm"]) if arm != REFERENCE]
    for arm in arms:
        yield markdown_row([f"`{arm}`", *_cells(table, arm, REFERENCE), *_cost(table, arm)])
    if "direct" in arms:
        yield ""
        yield from markdown_header(["`direct` minus", *MEASURES])
        for other in arms:
            if other != "direct":
                yield markdown_row([f"`{other}`", *_cells(table, "direct", other)])
    pairs = [pair for pair in PAIRS if set(pair) <= set(arms)]
    if pairs:
        yield ""
        yield from markdown_header(["other pairs", *MEASURES])
    for arm, other in pairs:
        yield markdown_row([f"`{arm}` minus `{other}`", *_cells(table, arm, other)])


def _cells(table: pd.DataFrame, arm: str, other: str) -> list[str]:
    found = _found(table, arm, other)
    means = [found[MEAN_OF_SPLIT[split]] for split in (IN_DOMAIN, OUT_OF_DOMAIN, HELDOUT)]
    means[2:2] = [_found(table, arm, other, measure)[MEAN_OF_TASKS] for measure in ("bpb_answer", "choice")]
    return [_interval(difference) for difference, _ in means]


def difference(scores: dict[str, pd.DataFrame], one: Comparison) -> tuple[PairedDifference, int]:
    """Return what one primary comparison found, and over how many seeds."""
    if not {one.arm, one.other} <= set(scores[one.run]["arm"]):
        return PairedDifference(), 0
    return _found(scores[one.run], one.arm, one.other, level=one.level)[MEAN_OF_SPLIT[one.split]]


def _found(
    table: pd.DataFrame, arm: str, other: str, measure: Measure = "bpb", level: float = 0.95
) -> dict[str, tuple[PairedDifference, int]]:
    """Return by task and mean what two arms differ by, and over how many seeds."""
    both = table[table["arm"].isin([arm, other])]
    rows = paired_differences(both, reference=other, measure=measure, level=level)
    figures = zip(*(rows[name] for name in ("task", "difference", "sd", "low", "high", "seeds")), strict=True)
    return {task: (PairedDifference(*of_task), seeds) for task, *of_task, seeds in figures}


def _verdict(found: PairedDifference, one: Comparison, scores: dict[str, pd.DataFrame]) -> str:
    if np.isnan(found.high):
        return "not run"
    if one.cost is not None:
        tokens = arm_costs(scores[one.run]).set_index("arm")["method_tokens"]
        if tokens[one.arm] > one.cost * tokens[one.other]:
            return "no: it costs too much"
    if one.by_mean:
        return "yes" if found.difference <= one.limit else "no"
    return "yes" if found.high < one.limit else "no: the other way" if found.low > one.limit else "no"


def _cost(table: pd.DataFrame, arm: str) -> list[str]:
    cost = arm_costs(table).set_index("arm").loc[arm]
    if not cost["method_flops"]:
        return ["0", "0"]
    return [f"{cost['method_share']:.0%}".replace("%", " %"), f"{cost['method_flops']:.1e}".replace("e+", "e")]


def _interval(found: PairedDifference, level: float = 0.95) -> str:
    """Write a difference with its interval; the level where it is not 95 %."""
    if np.isnan(found.difference):
        return ""
    of = "" if level == 0.95 else f", {level:.1%}".replace("%", " %")
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f}{of})"


def _words(split: str) -> str:
    return "held-out text" if split == HELDOUT else split.replace("_", "-")


def draw(scores: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw what tasks gain and held-out text pays under every arm, a figure a corpus, as `path` with its name."""
    for run in SWITCHED:
        figure = trade_off(paired_differences(scores[run], reference=REFERENCE), origin=RUNS[run])
        figure.savefig(path.with_stem(f"{path.stem}_{run}"), dpi=110)


if __name__ == "__main__":
    main()
