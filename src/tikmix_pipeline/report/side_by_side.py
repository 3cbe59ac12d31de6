"""What the notebook shows of finished runs: what held a mixture, two runs side by side, and whether it came true."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.mixture.decision import holder, in_words, told_constraints
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.report.figure_style import FEWEST_PAIRS, told_correlation
from tikmix_pipeline.report.run_summary import RunSummary
from tikmix_pipeline.statistics import spearman

if TYPE_CHECKING:
    import pandas as pd


def constraints_table(decision: DecisionRecord) -> "pd.DataFrame":
    """Return what held a decided mixture, the dearest first: `held`, `how` and `price`.

    The price of a bound, or of a task that may not lose, is how fast the objective would fall were it loosened; that of
    a guardrail is per unit of its tolerance, and 0 where it does not bind.
    """
    import pandas as pd

    rows = [(holder(one), in_words(one), one.multiplier) for one in told_constraints(decision.binding)]
    guardrails = () if decision.second_order is None else decision.second_order.guardrails
    held = {row[0] for row in rows}
    rows += [
        (f"guardrail {one.name}", f"tolerance {one.tolerance:g} ({one.unit}), with room left", one.price)
        for one in guardrails
        if f"guardrail {one.name}" not in held
    ]
    return pd.DataFrame(sorted(rows, key=lambda row: -row[2]), columns=["held", "how", "price"])


def side_by_side(one: RunSummary, other: RunSummary, names: tuple[str, str]) -> "dict[str, pd.DataFrame]":
    """Return the next mixture and the scores on all evaluation data of two runs, and how the second differs.

    Tables are by what they show; their columns are the two names and `difference`. A domain or task that only one run
    has is missing in the other.
    """
    import pandas as pd

    def table(values: Sequence[dict[str, float]]) -> pd.DataFrame:
        found = pd.DataFrame(dict(zip(_apart(names), values, strict=True)))
        return found.assign(difference=found.iloc[:, 1] - found.iloc[:, 0])

    both = (one, other)
    return {
        "mixture decided for the next chunk": table([dict(run.mixtures[-1].weights) for run in both]),
        "tasks, bits per byte": table([run.final_bits_per_byte["task"] for run in both]),
        "held-out text, bits per byte": table([run.final_bits_per_byte["domain"] for run in both]),
    }


def _apart(names: tuple[str, str]) -> tuple[str, str]:
    first, second = names
    return (first, second) if first != second else (first, f"{second} (2)")


def predicted_and_measured(summary: RunSummary, decisions: Sequence[DecisionRecord]) -> "tuple[pd.DataFrame, str]":
    """Return by task what was expected of the mixtures that were trained on, what came of them, and a word on both.

    `predicted` is the mean of the decisions' expected gains over the prior, as shares of the best possible where they
    are none of a measured unit; `measured` is by how many bits per byte whole items ended lower than had the prior been
    kept, with `low` and `high` of its interval. Without a verdict there is nothing to hold them against.
    """
    import pandas as pd

    columns = ["predicted", "measured", "low", "high"]
    if summary.verdict is None or not decisions:
        return pd.DataFrame(columns=columns), "The run has no verdict (tikmix.verdict): nothing says what came of it."
    rows = {}
    for task, found in summary.verdict.tasks.items():
        told = [_share(decision, task) for decision in decisions if task in decision.expected_gain]
        predicted = float(np.mean(told)) if told else math.nan
        rows[task] = (predicted, -found.difference, -found.high, -found.low)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    pairs = table.dropna(subset=["predicted", "measured"])
    correlation = math.nan
    if len(pairs) >= FEWEST_PAIRS:
        correlation = float(
            spearman(*(pairs[[of]].to_numpy(dtype=np.float64).T for of in ("predicted", "measured")))[0]
        )
    return table, f"Spearman of predicted and measured over tasks: {told_correlation(correlation, len(pairs))}."


def _share(decision: DecisionRecord, task: str) -> float:
    scale = 1.0 if decision.gain_scale is None else decision.gain_scale[task]
    return decision.expected_gain[task] / scale
