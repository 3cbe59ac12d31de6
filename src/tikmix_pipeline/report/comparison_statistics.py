"""Is one arm better than another, or did it only draw a better seed?

All arms of a seed start from the same weights and read in the same order, so they are compared seed by seed. For the
difference d of an arm and a reference (negative: the arm has fewer bits per byte), with n seeds, mean m and standard
deviation s over seeds:

    interval          m ± t(0.975; n − 1) s / √n, Student's 95 %; an arm is distinguishable if it excludes 0
    p value           of the paired t-test, two-sided: below 0.05 exactly where the interval excludes 0
    win probability   P(d < 0) on a new seed, by the predictive distribution of the same normal model:
                      F(−m / (s √(1 + 1/n)); n − 1). It takes every difference to be as likely as any other
                      beforehand: too sure of itself where most arms are nearly alike
    share won         of the seeds at hand, a tie counting half

Each interval is by itself: where there is nothing to find, some of eleven independent intervals would exclude 0 four
times in ten. Two or three seeds make t wide (12.7 and 4.3 standard errors), and that differences are normal is an
assumption which they cannot test.
"""

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.comparison_scores import COSTS, Measure, check_scores, is_task, wide_scores

if TYPE_CHECKING:
    import pandas as pd

FIGURES = ("difference", "sd", "low", "high", "p_value", "win_probability", "share_won")
"""What is said in numbers of an arm against a reference."""

_UPPER = 0.975
"""The quantile of t at the upper end of a 95 % interval."""


def arm_statistics(scores: "pd.DataFrame", *, measure: Measure = "bpb") -> "pd.DataFrame":
    """Return mean and standard deviation over an arm's seeds, of each task and each mean of tasks.

    Args:
        scores: columns `arm`, `seed`, `task`, `split`, the measure and the costs.
        measure: the column to compare by.

    Returns:
        Columns `arm, split, task, seeds, mean, sd`; sd is nan with a single seed.

    Raises:
        TikmixError: the scores of some arm are not those of the others.
    """
    import pandas as pd

    wide = wide_scores(scores, measure)
    rows = []
    for arm in arms_of(wide):
        values_SC = wide.loc[arm].to_numpy()
        seeds = len(values_SC)
        sd_C = values_SC.std(axis=0, ddof=1) if seeds > 1 else np.full(values_SC.shape[1], np.nan)
        rows += [
            {"arm": arm, "split": split, "task": task, "seeds": seeds, "mean": float(mean), "sd": float(sd)}
            for (split, task), mean, sd in zip(wide.columns, values_SC.mean(axis=0), sd_C, strict=True)
        ]
    return pd.DataFrame(rows)


def paired_differences(scores: "pd.DataFrame", *, reference: str, measure: Measure = "bpb") -> "pd.DataFrame":
    """Compare every other arm with a reference, over the seeds that both have.

    Args:
        scores: columns `arm`, `seed`, `task`, `split`, the measure and the costs.
        reference: the arm to compare with.
        measure: the column to compare by.

    Returns:
        Columns `arm, reference, split, task, seeds, difference, sd, low, high, p_value, win_probability, share_won,
        distinguishable, note`. Differences are arm minus reference. `note` says what is out of the ordinary: fewer
        seeds than there are, no interval, scores that are not finite; else it is empty.

    Raises:
        TikmixError: `reference` has no scores, or the scores of some arm are not those of the others.
    """
    import pandas as pd

    wide = wide_scores(scores, measure)
    arms = arms_of(wide)
    if reference not in arms:
        raise TikmixError(
            f"There are no scores of '{reference}', which the arms are compared with, only of {', '.join(arms)}. "
            "Finish its runs, or compare with one of these."
        )
    rows = [
        {"arm": arm, "reference": reference, "split": split, "task": task, **figures}
        for arm in arms
        if arm != reference
        for (split, task), figures in zip(wide.columns, _differences(wide, arm, reference), strict=True)
    ]
    return pd.DataFrame(
        rows, columns=["arm", "reference", "split", "task", "seeds", *FIGURES, "distinguishable", "note"]
    )


def best_on(scores: "pd.DataFrame", *, measure: Measure = "bpb") -> "pd.DataFrame":
    """Count the tasks on which an arm's mean over seeds is the best; arms that tie share the task.

    The means are over the seeds that all arms have, or if there is no such seed, over each arm's own. Held-out text
    does not count. An arm with an undefined mean is not best.

    Args:
        scores: columns `arm`, `seed`, `task`, `split`, the measure and the costs.
        measure: the column to compare by.

    Returns:
        Columns `arm, best_on, tasks`; tasks is how many there are.
    """
    import pandas as pd

    wide = wide_scores(scores, measure)
    tasks = wide.loc[:, is_task(wide)]
    shared = shared_seeds(wide)
    if shared:
        tasks = tasks[tasks.index.isin(shared, level="seed")]
    arms = arms_of(wide)
    mean_AT = np.stack([tasks.loc[arm].to_numpy().mean(axis=0) for arm in arms])
    mean_AT = np.where(np.isnan(mean_AT), np.inf, mean_AT)
    wins_AT = (mean_AT == mean_AT.min(axis=0)) & np.isfinite(mean_AT)
    share_A = (wins_AT / np.maximum(wins_AT.sum(axis=0), 1)).sum(axis=1)
    return pd.DataFrame({"arm": arms, "best_on": share_A, "tasks": tasks.shape[1]})


def arm_costs(scores: "pd.DataFrame") -> "pd.DataFrame":
    """Return what an arm read and what it spent on deciding, on average over its seeds.

    Args:
        scores: columns `arm`, `seed`, `task`, `split`, `bpb` and the costs.

    Returns:
        Columns `arm, seeds, train_tokens, method_tokens, method_flops, method_share`, the last being method tokens per
        training token.
    """
    check_scores(scores)
    of_runs = scores.drop_duplicates(["arm", "seed"]).groupby("arm", sort=False)
    costs = of_runs[list(COSTS)].mean()
    costs.insert(0, "seeds", of_runs.size())
    return costs.assign(method_share=costs["method_tokens"] / costs["train_tokens"]).reset_index()


def arms_of(wide: "pd.DataFrame") -> list[str]:
    """Return the arms of `wide_scores` in their order."""
    return list(wide.index.unique("arm"))


def shared_seeds(wide: "pd.DataFrame") -> list[int]:
    """Return the seeds of `wide_scores` that every arm has."""
    return sorted(set.intersection(*(set(wide.loc[arm].index) for arm in arms_of(wide))))


def _differences(wide: "pd.DataFrame", arm: str, reference: str) -> list[dict[str, Any]]:
    """Compare two arms in every column."""
    either = sorted({*wide.loc[arm].index, *wide.loc[reference].index})
    seeds = [seed for seed in either if seed in wide.loc[arm].index and seed in wide.loc[reference].index]
    difference_SC = wide.loc[arm].loc[seeds].to_numpy() - wide.loc[reference].loc[seeds].to_numpy()
    return [
        {
            "seeds": len(seeds),
            **_compared(difference_S),
            "note": _note(difference_S, seeds, either),
        }
        for difference_S in difference_SC.T
    ]


def _compared(difference_S: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the figures of one column; those that its seeds are too few for are nan."""
    from scipy.stats import t

    seeds = len(difference_S)
    figures = dict.fromkeys(FIGURES, math.nan)
    if seeds and np.isfinite(difference_S).all():
        mean = float(difference_S.mean())
        won = (difference_S < 0) + 0.5 * (difference_S == 0)
        figures |= {"difference": mean, "share_won": float(won.mean())}
        if seeds > 1:
            sd = float(difference_S.std(ddof=1))
            error = sd / math.sqrt(seeds)
            half_width = float(t.ppf(_UPPER, seeds - 1)) * error
            figures |= {"sd": sd, "low": mean - half_width, "high": mean + half_width}
            figures["p_value"] = float(2 * t.sf(abs(_ratio(mean, error)), seeds - 1))
            figures["win_probability"] = float(t.cdf(-_ratio(mean, sd * math.sqrt(1 + 1 / seeds)), seeds - 1))
    return {**figures, "distinguishable": bool(figures["low"] > 0 or figures["high"] < 0)}


def _ratio(mean: float, spread: float) -> float:
    """Divide; seeds that all agree leave no doubt, and none at all where they agree on no difference."""
    if spread > 0:
        return mean / spread
    return 0.0 if mean == 0 else math.copysign(math.inf, mean)


def _note(difference_S: npt.NDArray[np.float64], seeds: Sequence[Hashable], either: Sequence[Hashable]) -> str:
    undefined = [seed for seed, value in zip(seeds, difference_S, strict=True) if np.isnan(value)]
    if not seeds:
        return "no seed in common"
    remarks = []
    if len(seeds) < len(either):
        remarks.append(f"only over the seeds that both have: {_listed(seeds)}")
    if undefined:
        remarks.append(f"no finite score of both at seed {_listed(undefined)}")
    elif len(seeds) == 1:
        remarks.append("one seed: no interval")
    return "; ".join(remarks)


def _listed(seeds: Sequence[Hashable]) -> str:
    return ", ".join(map(str, seeds))
