"""How well predicted effects agree with measured ones, and how well they could.

Measured are gains G[r, t, j]: how much lower the loss of task t is after branch j of replicate r than after the
baseline of the same replicate. Predicted are effects P[t, j] in the same unit. Per task, over domains j:

    Pearson, Spearman   of the mean gain over replicates with the prediction
    slope               Σ_j G_j P_j / Σ_j P_j²: measured per predicted, through the origin
    ceiling             the same correlation between two single replicates, on average over pairs
    reliability         R c / (1 + (R − 1) c) for R replicates with ceiling c (Spearman 1910, Brown 1910): the share of
                        the variance of their mean that a repetition would find again; its root is the highest
                        correlation that a perfect prediction would reach on average
    interval            middle 95 % of a bootstrap over replicates

Correlations do not see a gain or a prediction shifted or scaled as a whole; the slope sees both. Domains all alike, or
fewer than two, correlate with nothing: nan, here and in any mean whose members all are.

Few replicates make a rough interval: three of them give ten different means.

Axes: R replicates, T tasks, M = T + 1 tasks and their mean, K domains, B resamples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from tikmix_pipeline.statistics.correlations import Floats, mean_of_defined, pearson, spearman
from tikmix_pipeline.statistics.intervals import middle_interval

Interval = tuple[float, float]

MEAN_OF_TASKS = "mean of tasks"
MEAN_GAIN = "mean gain"

_RESAMPLES = 1000
_ENDS = ("low", "high")


@dataclass(frozen=True)
class Agreement:
    """Agreement over domains, for one task or for several at once.

    Attributes:
        spearman: rank correlation of mean gain and prediction.
        pearson: linear correlation of the two.
        slope: measured effect per predicted effect.
        ceiling: mean rank correlation between two single replicates.
        pearson_ceiling: the same, linear.
        reliability: of the mean of all replicates; never negative.
        spearman_interval: where `spearman` lies over bootstrapped replicates.
        pearson_interval: where `pearson` lies.
        slope_interval: where `slope` lies.
    """

    spearman: float
    pearson: float
    slope: float
    ceiling: float
    pearson_ceiling: float
    reliability: float
    spearman_interval: Interval
    pearson_interval: Interval
    slope_interval: Interval

    @property
    def reachable(self) -> float:
        """The highest Pearson correlation that a perfect prediction would reach on average."""
        return float(np.sqrt(self.reliability))


@dataclass(frozen=True)
class Agreements:
    """Agreement task by task, on average, and of the average.

    Attributes:
        tasks: one per task.
        mean: the mean of each figure over the tasks.
        of_mean_gain: agreement of the gain averaged over tasks with the prediction averaged over tasks.
    """

    tasks: tuple[Agreement, ...]
    mean: Agreement
    of_mean_gain: Agreement


def agreement(gains_RTK: Floats, predicted_TK: Floats, *, resamples: int = _RESAMPLES, seed: int = 0) -> Agreements:
    """Compare measured gains with predicted effects.

    Args:
        gains_RTK: measured, in nats per token; nan where a branch failed.
        predicted_TK: predicted, in the same unit for slopes to be read.
        resamples: of the bootstrap; every prediction compared under one `seed` meets the same ones.
        seed: decides the resamples.

    Returns:
        Correlations are nan where fewer than two domains differ, ceilings where there are fewer than two replicates.
    """
    gains_RMK = np.concatenate([gains_RTK, gains_RTK.mean(axis=1, keepdims=True)], axis=1)
    predicted_MK = np.concatenate([predicted_TK, predicted_TK.mean(axis=0, keepdims=True)])
    chosen_BR = np.random.default_rng(seed).integers(len(gains_RMK), size=(resamples, len(gains_RMK)))
    figures_M = _measured(mean_of_defined(gains_RMK, axis=0), predicted_MK) | _ceilings(gains_RMK)
    drawn_BM = _measured(mean_of_defined(gains_RMK[chosen_BR], axis=1), predicted_MK)
    single, last = slice(None, -1), slice(-1, None)
    of_mean, drawn_mean = (
        {name: mean_of_defined(values[..., single], axis=-1)[..., None] for name, values in group.items()}
        for group in (figures_M, drawn_BM)
    )
    return Agreements(
        tasks=tuple(_agreements(figures_M, drawn_BM, single)),
        mean=next(_agreements(of_mean, drawn_mean, last)),
        of_mean_gain=next(_agreements(figures_M, drawn_BM, last)),
    )


def compared_rows(
    gains_RTK: Floats, predicted: Mapping[str, Floats], tasks: Sequence[str], *, seed: int
) -> list[dict[str, Any]]:
    """Return one row per candidate and task, and two per candidate for the mean of tasks and of the mean gain.

    `best` marks the rows of the candidate whose mean of the tasks' Pearson correlations is highest.

    Args:
        gains_RTK: measured gains.
        predicted: predicted effects (T, K) by candidate.
        tasks: names along T.
        seed: of the bootstrap.
    """
    found = {name: agreement(gains_RTK, predicted_TK, seed=seed) for name, predicted_TK in predicted.items()}
    defined = [name for name, of in found.items() if not math.isnan(of.mean.pearson)]
    best = max(defined, key=lambda name: found[name].mean.pearson, default=None)
    return [
        {"curvature": name, "task": task, **_row(one), "best": name == best}
        for name, of in found.items()
        for task, one in [*zip(tasks, of.tasks, strict=True), (MEAN_OF_TASKS, of.mean), (MEAN_GAIN, of.of_mean_gain)]
    ]


def _row(one: Agreement) -> dict[str, float]:
    intervals = {"spearman": one.spearman_interval, "pearson": one.pearson_interval, "slope": one.slope_interval}
    ends = {f"{name}_{end}": value for name, pair in intervals.items() for end, value in zip(_ENDS, pair, strict=True)}
    return {
        "spearman": one.spearman,
        "pearson": one.pearson,
        "slope": one.slope,
        "ceiling": one.ceiling,
        "pearson_ceiling": one.pearson_ceiling,
        "reachable": one.reachable,
        **ends,
    }


def spearman_brown(correlation: Floats, replicates: int) -> Floats:
    """Return the reliability of the mean of replicates that correlate like this with each other; at least 0."""
    positive = np.maximum(correlation, 0)
    reliability: Floats = replicates * positive / (1 + (replicates - 1) * positive)
    return reliability


def _measured(gain_MK: Floats, predicted_MK: Floats) -> dict[str, Floats]:
    """Compare one gain per task and domain with its prediction; there may be axes before M."""
    predicted_MK = np.where(np.isnan(gain_MK), np.nan, predicted_MK)
    square_M = np.nansum(predicted_MK**2, axis=-1)
    slope_M = np.full(square_M.shape, np.nan)
    np.divide(np.nansum(gain_MK * predicted_MK, axis=-1), square_M, out=slope_M, where=square_M > 0)
    spearman_M, pearson_M = _correlations(gain_MK, predicted_MK)
    return {"spearman": spearman_M, "pearson": pearson_M, "slope": slope_M}


def _ceilings(gains_RMK: Floats) -> dict[str, Floats]:
    pairs = np.array([_correlations(one, other) for one, other in combinations(gains_RMK, 2)])
    undefined_2M = np.full((2, gains_RMK.shape[1]), np.nan)
    spearman_M, pearson_M = mean_of_defined(pairs, axis=0) if len(pairs) else undefined_2M
    reliability_M = spearman_brown(pearson_M, len(gains_RMK))
    return {"ceiling": spearman_M, "pearson_ceiling": pearson_M, "reliability": reliability_M}


def _correlations(one_MK: Floats, other_MK: Floats) -> tuple[Floats, Floats]:
    """Return Spearman and Pearson row by row, over what both have."""
    return spearman(one_MK, other_MK, omit_missing=True), pearson(one_MK, other_MK, omit_missing=True)


def _agreements(figures_M: dict[str, Floats], drawn_BM: dict[str, Floats], columns: slice) -> Iterator[Agreement]:
    for column in range(len(figures_M["slope"]))[columns]:
        of = {name: float(values[column]) for name, values in figures_M.items()}
        around = {name: middle_interval(drawn[:, column]) for name, drawn in drawn_BM.items()}
        yield Agreement(
            spearman=of["spearman"],
            pearson=of["pearson"],
            slope=of["slope"],
            ceiling=of["ceiling"],
            pearson_ceiling=of["pearson_ceiling"],
            reliability=of["reliability"],
            spearman_interval=around["spearman"],
            pearson_interval=around["pearson"],
            slope_interval=around["slope"],
        )


def agreement_table(losses, predictions, candidates, *, half, seed, round_number, branch_tokens, chunk_tokens):  # type: ignore
    import pandas as pd

    tasks, domains, gains_RTK = _gains(losses, predictions, half)
    predicted = {name: _wide(rows, tasks, domains) for name, rows in predictions.groupby("candidate", sort=False)}
    about = {"half": half, "replicates": len(gains_RTK), "branch_tokens": branch_tokens, "chunk_tokens": chunk_tokens}
    settings = {one.label: one.settings() for one in candidates}
    return pd.DataFrame(
        [
            {"round": round_number, **row, **settings[row["curvature"]], **about}
            for row in compared_rows(gains_RTK, predicted, tasks, seed=seed)
        ]
    )


def validation_points(losses, predictions, comparison, *, half):  # type: ignore
    import pandas as pd

    tasks, domains, gains_RTK = _gains(losses, predictions, half)
    best = comparison[comparison["best"]]
    shown = best if len(best) else comparison[comparison["curvature"] == comparison["curvature"].iloc[0]]
    predicted_TK = _wide(predictions[predictions["candidate"] == shown["curvature"].iloc[0]], tasks, domains)
    gains_RMK = np.concatenate([gains_RTK, gains_RTK.mean(axis=1, keepdims=True)], axis=1)
    predicted_MK = np.concatenate([predicted_TK, predicted_TK.mean(axis=0, keepdims=True)])
    points = pd.DataFrame(
        [
            {"task": task, "domain": domain, "predicted": predicted_MK[m, k], "measured": gain}
            for m, task in enumerate([*tasks, MEAN_GAIN])
            for k, domain in enumerate(domains)
            for gain in gains_RMK[:, m, k].tolist()
        ]
    )
    return points, shown


def _gains(losses, predictions, half):  # type: ignore
    from tikmix_pipeline.influence.counterfactual import measured_gains

    tasks, domains = (predictions[name].unique().tolist() for name in ("task", "domain"))
    rows = losses[losses["half"] == half]
    keys = zip(rows["replicate"].tolist(), rows["branch"], rows["task"], strict=True)
    by_key = dict(zip(keys, rows["loss"].tolist(), strict=True))
    return tasks, domains, measured_gains(by_key, tasks=tasks, domains=domains)


def _wide(rows, tasks, domains):  # type: ignore
    return rows.pivot(index="task", columns="domain", values="predicted").loc[tasks, domains].to_numpy()
