"""Whether a surrogate knows anything: a mixture that was chosen from noise looks like any other.

It has to rank runs that it was not fitted on better than chance, with 95 % certainty over the runs, and better than
rules that need no run at all. Where it does not, nothing is to be decided by it.

Axes: N judged runs, T targets.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.mixture.sweep.quality import MATCHING_DOMAIN, UNIFORM_DISTANCE, ranks_of
from tikmix_pipeline.statistics import bootstrapped_mean_spearman

if TYPE_CHECKING:
    import pandas as pd

_NAIVE = (UNIFORM_DISTANCE, MATCHING_DOMAIN)


def why_nothing_is_known(
    rows: Sequence[Mapping[str, Any]], predictions: "pd.DataFrame", kind: str, *, seed: int
) -> str | None:
    """Say in a sentence why a surrogate's word is worth nothing; None if it is worth something.

    Args:
        rows: of `quality.Quality`.
        predictions: its table of what every surrogate predicted, `run, surrogate, target, measured, predicted, n`.
        kind: the surrogate.
        seed: of the bootstrap.
    """
    ranked = ranks_of(rows, kind)
    if not ranked:
        return f"The surrogate '{kind}' predicts the same for all mixtures."
    own = predictions[(predictions["surrogate"] == kind) & predictions["target"].isin(ranked)]
    measured_NT, predicted_NT = (
        own.pivot(index="run", columns="target", values=values).to_numpy(dtype=float)
        for values in ("measured", "predicted")
    )
    mean, low, high = bootstrapped_mean_spearman(predicted_NT, measured_NT, seed=seed)
    about = f"{len(ranked)} target{'s' if len(ranked) > 1 else ''}, {len(measured_NT)} runs that it was not fitted on"
    found = f"mean Spearman {mean:.2f} (95 % interval {low:.2f} to {high:.2f}; {about})"
    if not low > 0:
        return f"The surrogate '{kind}' ranks mixtures no better than chance: {found}."
    for rule in _NAIVE:
        theirs = {target: spearman for target, spearman in ranks_of(rows, rule).items() if target in ranked}
        if theirs and sum(ranked[target] for target in theirs) <= sum(theirs.values()):
            by_rule = sum(theirs.values()) / len(theirs)
            return f"The surrogate '{kind}' ranks mixtures no better than the rule '{rule}' ({by_rule:.2f}): {found}."
    return None
