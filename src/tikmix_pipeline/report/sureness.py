"""How sure the order of domains is, in words."""

import math
from collections.abc import Sequence

from tikmix_pipeline.report.content import TaskRow
from tikmix_pipeline.report.notation import correlation

_WORDS = (
    (0.9, "put the domains in almost the same order"),
    (0.7, "put the domains in a similar order"),
    (0.4, "agree on the order of domains in part only"),
    (-1.0, "hardly agree on the order of domains"),
)
"""A reading aid: correlations from which on the words are used."""

SHAKY = 0.7
"""Rank stability below which a task is named."""


def order_sentence(rank_stability: float | None) -> str:
    """Say how well two halves of the measured text agree, by Spearman's correlation, and what follows."""
    if rank_stability is None or not math.isfinite(rank_stability):
        return "How far two halves of the measured text agree was not measured: the order may be chance."
    words = next((words for bound, words in _WORDS if rank_stability >= bound), _WORDS[-1][1])
    advice = "" if rank_stability >= SHAKY else " Measuring more tokens per domain would make the order surer."
    return (
        f"Two halves of the measured text {words}: their rank correlation is {correlation(rank_stability)}, where 1 is "
        f"the same order and 0 is chance.{advice}"
    )


def shakiest(tasks: Sequence[TaskRow]) -> list[str]:
    """Return the tasks whose own order of domains is shaky, the shakiest first."""
    known = [(row.rank_stability, row.name) for row in tasks if row.rank_stability is not None]
    return [name for stability, name in sorted(known) if stability < SHAKY]
