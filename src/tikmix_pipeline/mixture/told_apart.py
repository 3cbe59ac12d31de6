"""Whether a measurement tells domains apart at all: a mixture that was decided on noise looks like any other.

The influence of each of a domain's gradient chunks, on the mean of the tasks, is one value. If domains differ by no
more than the chunks of one domain do, nothing is known of them: the F test of a one-way analysis of variance (Fisher
1925),

    F = [Σ_k L (ā_k − ā)² / (K − 1)] / [Σ_k Σ_l (a_kl − ā_k)² / (K (L − 1))].

Noise that all domains share, as that of the tasks' items, moves all values alike and counts for neither side.

Axes: K domains, L chunks of a domain.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tikmix_pipeline.mixture.simplex import FloatArray

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
"""Domains that differ by so much or more with this probability, were they alike, are not told apart."""


def chance_of_differing(parts: "pd.DataFrame", shares: Mapping[str, float]) -> float:
    """Return the probability that domains which are all alike differ as much as these do.

    Args:
        parts: `part_influence.parquet` of a round.
        shares: of the tasks in their mean; others do not count.

    Returns:
        1 where no domain differs from another, and 0 where a domain has one chunk alone, which tells nothing of noise.
    """
    from scipy.stats import f

    a_KL = _of_mean(parts, shares)
    domains, chunks = a_KL.shape
    if domains < 2 or chunks < 2:
        return 0.0
    mean_K = a_KL.mean(axis=1)
    between = chunks * float(((mean_K - mean_K.mean()) ** 2).sum()) / (domains - 1)
    within = float(((a_KL - mean_K[:, None]) ** 2).sum()) / (domains * (chunks - 1))
    if within == 0:
        return 0.0 if between > 0 else 1.0
    return float(f.sf(between / within, domains - 1, domains * (chunks - 1)))


def _of_mean(parts: "pd.DataFrame", shares: Mapping[str, float]) -> FloatArray:
    counted = parts[parts["task"].isin([task for task, share in shares.items() if share])]
    weighed = counted.assign(influence=counted["influence"] * counted["task"].map(shares))
    table = weighed.pivot_table(index="domain", columns="part", values="influence", aggfunc="sum", sort=False)
    values: FloatArray = table.to_numpy(dtype="float64")
    return values


def why_nothing_is_told(parts: "Sequence[pd.DataFrame]", shares: Mapping[str, float]) -> str | None:
    """Say in a sentence why no mixture can be decided on these rounds; None where one of them tells domains apart."""
    chances = [chance_of_differing(of_round, shares) for of_round in parts]
    least = min(chances)
    if least < LEVEL:
        return None
    return (
        "Domains do not differ in what they do for the tasks by more than the chunks of one domain do (F test: were "
        f"they alike, they would differ as much in {least:.0%} of measurements). So nothing is decided, and the "
        "current mixture is kept. What would help: more text (influence.tokens), more items "
        "(influence.items_per_task), or other tasks."
    )
