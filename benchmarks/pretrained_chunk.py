"""A chunk of a pretrained model under three mixtures, item by item: the table of docs/results.md, from stored scores.

    python benchmarks/pretrained_chunk.py
    python benchmarks/pretrained_chunk.py --read data --experiment smolc --seed 0

trains nothing. `--read` stores what `kedro run --pipelines compare` left of such an experiment: nats and bytes of every
item and window (`final_items.parquet`), and the loss of the right choice. Differences are arm minus arm over the same
items (`report.verdict`), with 95 % intervals over them; of other seeds they tell nothing. Choices have no interval.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from common import TABLES, markdown_header, markdown_row
from tikmix_pipeline.report.verdict import ScoreDifference, verdict_on

ITEMS, SCORES = TABLES / "pretrained_items.csv", TABLES / "pretrained.csv"
DECIDING = ("piqa", "mmlu", "siqa")
PAIRS = (("direct", "proportional"), ("ngram", "proportional"), ("direct", "ngram"))


def main() -> None:
    """Print the table, or store what it is made of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", type=Path, help="the data folder of the comparison")
    parser.add_argument("--experiment", default="smolc")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.read:
        store(options.read, options.experiment, options.seed)
    print("\n".join(pretrained_table()))


def store(data: Path, experiment: str, seed: int) -> None:
    """Write the stored scores."""
    items, scores = [], []
    for arm in ("proportional", "ngram", "direct"):
        folder = data / "07_model_output" / f"{experiment}.{arm}.{seed}"
        items.append(pd.read_parquet(folder / "final_items.parquet").assign(arm=arm))
        scores.append(pd.read_parquet(folder / "final_evaluation.parquet").assign(arm=arm))
    pd.concat(items).query("measure == 'text'").to_csv(ITEMS, index=False, float_format="%.6g")
    pd.concat(scores).to_csv(SCORES, index=False, float_format="%.6f")


def pretrained_table() -> Iterator[str]:
    """Return the lines of the table."""
    items, scores = pd.read_csv(ITEMS), pd.read_csv(SCORES)
    columns = ["", "tasks that decide", "tasks never seen", "held-out text", "right choice", "right choice, never seen"]
    yield from markdown_header(columns)
    for arm, other in PAIRS:
        decided, kept = (items[items["arm"] == name].drop(columns="arm") for name in (arm, other))
        found = verdict_on(decided, kept, deciding=DECIDING, training_flops=1.0, method_flops=0.0)
        if found.mean_of_tasks is None or found.mean_of_judges is None:
            raise ValueError("some tasks decide and some only judge")
        texts = [_told(one) for one in (found.mean_of_tasks, found.mean_of_judges, found.mean_of_heldout)]
        choices = [f"{_choice(scores, arm, seen) - _choice(scores, other, seen):+.4f}" for seen in (True, False)]
        yield markdown_row([f"`{arm}` minus `{other}`", *texts, *choices])


def _told(found: ScoreDifference) -> str:
    return f"{found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _choice(scores: pd.DataFrame, arm: str, is_deciding: bool) -> float:
    """Return the mean over tasks of the right choice's loss, in nats per item."""
    rows = scores[(scores["arm"] == arm) & (scores["measure"] == "choice")]
    return float(rows.loc[rows["name"].isin(DECIDING) == is_deciding, "nats_per_item"].mean())


if __name__ == "__main__":
    main()
