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
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.validation import Candidate
from tikmix_pipeline.statistics import Floats, mean_of_defined, middle_interval, pearson, spearman

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.tasks import Half

Interval = tuple[float, float]

BASELINE = "baseline"

MEAN_OF_TASKS = "mean of tasks"
MEAN_GAIN = "mean gain"

_RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """Agreement over domains, for one task or for several at once; intervals are over bootstrapped replicates."""

    spearman: float
    pearson: float
    slope: float
    ceiling: float
    """Mean rank correlation between two single replicates."""
    pearson_ceiling: float
    reliability: float
    """Of the mean of all replicates; never negative."""
    spearman_interval: Interval
    pearson_interval: Interval
    slope_interval: Interval

    @property
    def reachable(self) -> float:
        """The highest Pearson correlation that a perfect prediction would reach on average."""
        return float(np.sqrt(self.reliability))


@dataclass(frozen=True)
class Agreements:
    """Agreement task by task, on average, and of the average."""

    tasks: tuple[Agreement, ...]
    mean: Agreement
    """The mean of each figure over the tasks."""
    of_mean_gain: Agreement
    """Agreement of the gain averaged over tasks with the prediction averaged over tasks."""


def raised(domain: str) -> str:
    """Return the name of the branch that reads more of `domain`; no domain makes it `baseline`."""
    return f"+{domain}"


def agreement(gains_RTK: Floats, predicted_TK: Floats, *, resamples: int = _RESAMPLES, seed: int = 0) -> Agreements:
    """Compare measured gains, nan where a branch failed, with predicted effects: in one unit, for slopes to be read.

    Correlations are nan where fewer than two domains differ, ceilings where there are fewer than two replicates. Every
    prediction compared under one `seed` meets the same resamples of the bootstrap.
    """
    gains_RMK, predicted_MK = _with_mean(gains_RTK, predicted_TK)
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

    `predicted` has effects (T, K) by candidate, and `seed` is that of the bootstrap. `best` marks the rows of the
    candidate whose mean of the tasks' Pearson correlations is highest.
    """
    found = {name: agreement(gains_RTK, predicted_TK, seed=seed) for name, predicted_TK in predicted.items()}
    defined = [name for name, of in found.items() if not math.isnan(of.mean.pearson)]
    best = max(defined, key=lambda name: found[name].mean.pearson, default=None)
    return [
        {"curvature": name, "task": task, **_row(one), "best": name == best}
        for name, of in found.items()
        for task, one in [*zip(tasks, of.tasks, strict=True), (MEAN_OF_TASKS, of.mean), (MEAN_GAIN, of.of_mean_gain)]
    ]


def measured_gains(
    losses: Mapping[tuple[int, str, str], float], *, tasks: Sequence[str], domains: Sequence[str]
) -> Floats:
    """Return G (R, T, K) in nats per token from losses by replicate, branch and task.

    It is nan where a branch, or the baseline of its replicate, has no loss. A TikmixError is raised if fewer than two
    domains have a gain in any replicate.
    """
    replicates = sorted({replicate for replicate, _, _ in losses})
    gains_RTK = np.full((len(replicates), len(tasks), len(domains)), np.nan)
    for (r, replicate), (t, task) in product(enumerate(replicates), enumerate(tasks)):
        baseline = losses.get((replicate, BASELINE, task), np.nan)
        gains_RTK[r, t] = [baseline - losses.get((replicate, raised(domain), task), np.nan) for domain in domains]
    if (~np.isnan(gains_RTK)).any(axis=(0, 1)).sum() < 2:
        raise TikmixError(
            "Too few branches came through to compare with: the warnings above say why. Every replicate needs its "
            "baseline, and at least two domains a branch."
        )
    return gains_RTK


def agreement_table(
    losses: "pd.DataFrame",
    predictions: "pd.DataFrame",
    candidates: Sequence[Candidate],
    *,
    half: "Half",
    seed: int,
    round_number: int,
    branch_tokens: int,
    chunk_tokens: int,
) -> "pd.DataFrame":
    """Compare measured gains with predicted effects, in one row per candidate and task or mean of tasks.

    Args:
        losses: of the branches, as `counterfactual.loss_rows` has them.
        predictions: of all candidates, as `counterfactual.prediction_rows` has them.
        candidates: what tells them apart.
        half: of the tasks, that gains are taken on.
        branch_tokens: training tokens of a branch.
        chunk_tokens: training tokens of a round.

    Raises:
        TikmixError: as `measured_gains`.
    """
    import pandas as pd

    tasks, domains, gains_RTK = _gains(losses, predictions, half)
    predicted = {name: _wide(rows, tasks, domains) for name, rows in predictions.groupby("candidate", sort=False)}
    about = {"half": half, "replicates": len(gains_RTK), "branch_tokens": branch_tokens, "chunk_tokens": chunk_tokens}
    settings = {one.label: one.settings() for one in candidates}
    rows = compared_rows(gains_RTK, predicted, tasks, seed=seed)
    return pd.DataFrame([{"round": round_number, **row, **settings[row["curvature"]], **about} for row in rows])


def validation_points(
    losses: "pd.DataFrame", predictions: "pd.DataFrame", comparison: "pd.DataFrame", *, half: "Half"
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return a row per task, domain and replicate, with measured gain and the best candidate's prediction.

    The mean gain is one more task. Beside the points are returned the rows of `comparison` (from `agreement_table`) of
    the candidate whose they are, the first one if none is the best.
    """
    import pandas as pd

    tasks, domains, gains_RTK = _gains(losses, predictions, half)
    best = comparison[comparison["best"]]
    shown = best if len(best) else comparison[comparison["curvature"] == comparison["curvature"].iloc[0]]
    predicted_TK = _wide(predictions[predictions["candidate"] == shown["curvature"].iloc[0]], tasks, domains)
    gains_RMK, predicted_MK = _with_mean(gains_RTK, predicted_TK)
    points = [
        {"task": task, "domain": domain, "predicted": predicted_MK[m, k], "measured": gain}
        for m, task in enumerate([*tasks, MEAN_GAIN])
        for k, domain in enumerate(domains)
        for gain in gains_RMK[:, m, k].tolist()
    ]
    return pd.DataFrame(points), shown


def _gains(losses: "pd.DataFrame", predictions: "pd.DataFrame", half: "Half") -> tuple[list[str], list[str], Floats]:
    """Return targets, domains and the gains of every branch on the chosen half."""
    tasks, domains = (predictions[name].unique().tolist() for name in ("task", "domain"))
    rows = losses[losses["half"] == half]
    keys = zip(rows["replicate"].tolist(), rows["branch"], rows["task"], strict=True)
    by_key = dict(zip(keys, rows["loss"].tolist(), strict=True))
    return tasks, domains, measured_gains(by_key, tasks=tasks, domains=domains)


def _wide(rows: "pd.DataFrame", tasks: Sequence[str], domains: Sequence[str]) -> Floats:
    predicted = rows.pivot(index="task", columns="domain", values="predicted")
    predicted_TK: Floats = predicted.loc[list(tasks), list(domains)].to_numpy()
    return predicted_TK


def _with_mean(gains_RTK: Floats, predicted_TK: Floats) -> tuple[Floats, Floats]:
    """Add to either the mean over tasks, like one more task."""
    return (
        np.concatenate([gains_RTK, gains_RTK.mean(axis=1, keepdims=True)], axis=1),
        np.concatenate([predicted_TK, predicted_TK.mean(axis=0, keepdims=True)]),
    )


def _row(one: Agreement) -> dict[str, float]:
    names = ("spearman", "pearson", "slope", "ceiling", "pearson_ceiling", "reachable")
    row: dict[str, float] = {name: getattr(one, name) for name in names}
    for name in ("spearman", "pearson", "slope"):
        row[f"{name}_low"], row[f"{name}_high"] = getattr(one, f"{name}_interval")
    return row


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
        of: dict[str, Any] = {name: float(values[column]) for name, values in figures_M.items()}
        of |= {f"{name}_interval": middle_interval(drawn[:, column]) for name, drawn in drawn_BM.items()}
        yield Agreement(**of)
