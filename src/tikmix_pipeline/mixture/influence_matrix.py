"""The influence that a decision rests on: averaged over rounds, checked, and what each task's is divided by.

Influence is local: it says what helps at this checkpoint, and the mixture that follows it changes what would help at
the next. Decided on the last measurement alone, the mixture swings to and fro between rounds and gains less than one
decision kept; decided on the mean of the rounds so far it gains more, and most if a noisy round has less say
(docs/results.md).

So that tasks compare, the paper divides `P_t = Σ_j S[t, j] w_j` by `max_j S[t, j]`, the most that any mixture could
gain on task t: `P̂_t = 1` is the best that can be done for it. Where no domain helps a task that number is negative, and
dividing by it turns the task's sign around: the decision would seek out the domain that harms it most. Such a task is
divided by `max_j |S[t, j]|` instead: its least harmful domain keeps its place at the top, and a harm of the usual size,
−1, weighs against the other tasks as their best gain, +1, does.

**Shares of the best possible** are how gains are told. The unit of S is that of one model and one curvature: it says
nothing of nats until branches of that checkpoint have measured its scale. Over a reference mixture w_ref domain j has
the contrast `c_tj = S[t, j] − S_t w_ref`, and a mixture gains `S_t (w − w_ref) = Σ_j w_j c_tj`; divided by `max_j c_tj`
1 is what the task would gain, to first order, if all of the coming chunk were of its best domain, and no mixture has
more. Losses may be larger than any gain, and have shares below −1. Where no domain has a positive contrast, as where
the reference is all of the best one, there is nothing to gain, and the largest loss is −1.

Axes: R rounds, T tasks, K domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.decision import AveragingParameters, FirstOrderParameters

if TYPE_CHECKING:
    import pandas as pd

_HELPED = 1e-3
"""A domain helps a task if it gains at least this share of the task's largest absolute influence: far below what any
measurement resolves, and far above where the quotient loses its digits."""

_LEAST_ANCHOR = 0.01
"""The share of the uniform mixture in any anchor."""

_ALIKE = 1e-9
"""Domains do the same for a task if their influence differs by no more than this share of it."""

_LOUD = 10.0
"""A task whose normalised influence reaches this is worth a word: the others' is 1 at best."""


def averaged_influence(
    tables: Sequence["pd.DataFrame"], domains: Sequence[str], averaging: AveragingParameters
) -> tuple[list[str], FloatArray]:
    """Return the tasks and the influence (T, K) that a decision rests on.

    The tables are `influence.parquet` of the rounds so far, oldest first; the tasks are those of the last.

    Raises:
        TikmixError: as `average_influence`.
    """
    tasks = list(dict.fromkeys(tables[-1]["task"]))
    counted = tables[-1:] if averaging.memory == "none" else tables
    is_weighed = averaging.memory == "precision"
    stderrs = [influence_rows(table, tasks, domains, "stderr") for table in counted] if is_weighed else None
    return tasks, average_influence([influence_rows(table, tasks, domains, "influence") for table in counted], stderrs)


def influence_rows(table: "pd.DataFrame", tasks: Sequence[str], domains: Sequence[str], values: str) -> FloatArray:
    """Return one column of `influence.parquet` by task and domain, (T, K)."""
    # earlier rounds may have measured more than is asked for now
    wide = table.pivot(index="task", columns="domain", values=values).loc[[*tasks], [*domains]]
    values_TK: FloatArray = wide.to_numpy(dtype="float64")
    return values_TK


def averaged_errors(
    tables: Sequence["pd.DataFrame"], domains: Sequence[str], averaging: AveragingParameters
) -> FloatArray:
    """Return the standard errors (T, K) of what `averaged_influence` returns, the rounds' taken to be independent."""
    tasks = list(dict.fromkeys(tables[-1]["task"]))
    counted = tables[-1:] if averaging.memory == "none" else tables
    influences, errors = (
        [influence_rows(table, tasks, domains, name) for table in counted] for name in ("influence", "stderr")
    )
    factor_RT = unit_factors(influences)
    share_RT = _shares(factor_RT, errors if averaging.memory == "precision" else None)
    return _error_of_mean(share_RT * factor_RT, errors)


@dataclass(frozen=True, eq=False)
class AveragedContrasts:
    """What a decision by second order rests on."""

    tasks: list[str]
    contrast_TK: FloatArray
    """In the units of the last round's influence."""
    share_R: FloatArray
    """The say of each round that counts, the mean over tasks; they sum to 1."""
    stderr_TK: FloatArray
    """Of the influence, the rounds' errors taken to be independent, in the units of the last round."""


def average_contrasts(
    tables: Sequence["pd.DataFrame"], domains: Sequence[str], averaging: AveragingParameters, reference_K: FloatArray
) -> AveragedContrasts:
    """Return the mean over rounds of what each domain does beyond a reference mixture (`contrast`), per task.

    As `averaged_influence` does, but of contrasts: what all domains do alike says nothing of a mixture, and would give
    a round without a preference the say of one that has a clear one.

    Raises:
        TikmixError: as `average_influence`.
    """
    tasks = list(dict.fromkeys(tables[-1]["task"]))
    counted = tables[-1:] if averaging.memory == "none" else tables
    contrasts = [contrast(influence_rows(table, tasks, domains, "influence"), reference_K) for table in counted]
    errors = [influence_rows(table, tasks, domains, "stderr") for table in counted]
    stderrs = errors if averaging.memory == "precision" else None
    factor_RT = unit_factors(contrasts)
    share_RT = _shares(factor_RT, stderrs)
    share_R = share_RT.mean(axis=1)
    stderr_TK = _error_of_mean(share_RT * factor_RT, errors)
    return AveragedContrasts(tasks, average_influence(contrasts, stderrs), share_R, stderr_TK)


def average_influence(influences: Sequence[FloatArray], stderrs: Sequence[FloatArray] | None = None) -> FloatArray:
    """Return the running mean of the task-normalised influence, in the units of the last round.

    `S̄[t, j] = m_R,t · Σ_r p_r,t S_r[t, j] / m_r,t` with `m_r,t = max_k |S_r[t, k]|`. All rounds have the same say,
    `p_r,t = 1/R`, or as much as they are certain: `p_r,t ∝ m_r,t² / mean_j stderr_r[t, j]²`. Gradients shrink as
    training goes on, so every round's rows are first brought to [−1, 1]. (By the largest *absolute* influence: the
    paper's `max_k S` may be next to nothing in one round, whose noise would then drown the others.) Multiplying by the
    last round's magnitude gives expected gains in today's units; the decision itself does not depend on the scale of a
    row.

    Args:
        influences: S of each round (T, K), oldest first; the mean of one round is that round's itself.
        stderrs: the standard errors of each, to weigh the rounds by; where a task of any round has none, its rounds
            have the same say.

    Raises:
        TikmixError: the rounds differ in their numbers of tasks or domains.
    """
    factor_RT = unit_factors(influences)
    row_RTK = np.stack(influences) * factor_RT[:, :, None]
    if stderrs is None:
        mean_TK: FloatArray = row_RTK.mean(axis=0)
        return mean_TK
    weighted_TK: FloatArray = np.einsum("rt,rtk->tk", round_shares(factor_RT, stderrs), row_RTK)
    return weighted_TK


def _shares(factor_RT: FloatArray, stderrs: Sequence[FloatArray] | None) -> FloatArray:
    return np.full(factor_RT.shape, 1 / len(factor_RT)) if stderrs is None else round_shares(factor_RT, stderrs)


def _error_of_mean(weight_RT: FloatArray, errors: Sequence[FloatArray]) -> FloatArray:
    stderr_TK: FloatArray = np.sqrt((np.square(weight_RT)[:, :, None] * np.square(errors)).sum(axis=0))
    return stderr_TK


def round_shares(factor_RT: FloatArray, stderrs: Sequence[FloatArray]) -> FloatArray:
    """Return the say p of each round in a mean weighed by precision, (R, T); the rounds of a task sum to 1.

    The factors are those of `unit_factors`, and the standard errors (T, K) in the units of each round.
    """
    variance_RT = (np.square(np.stack(stderrs)).mean(axis=2)) * factor_RT**2
    certain_T = (np.isfinite(variance_RT) & (variance_RT > 0)).all(axis=0)
    precision_RT = 1 / np.where(certain_T, variance_RT, 1.0)
    shares_RT: FloatArray = precision_RT / precision_RT.sum(axis=0)
    return shares_RT


def unit_factors(influences: Sequence[FloatArray]) -> FloatArray:
    """Return what brings the rows of each round to the units of the last: `m_R,t / m_r,t`, (R, T).

    Raises:
        TikmixError: the rounds differ in their numbers of tasks or domains.
    """
    shapes = [influence_TK.shape for influence_TK in influences]
    if len(set(shapes)) > 1:
        raise TikmixError(
            f"The rounds measured influence on different tasks and domains, (tasks, domains) = {shapes}, so they have "
            "no mean. Set tikmix.memory to 'none', or give the new tasks or domains a new `experiment`."
        )
    return np.stack([magnitude(influences[-1]) / magnitude(influence_TK) for influence_TK in influences])


def check_influence(influence_TK: FloatArray, tasks: Sequence[str], domains: Sequence[str]) -> None:
    """Refuse an influence matrix of the wrong shape or with an entry that is not a finite number.

    Raises:
        TikmixError: there is such an entry; the message names its task and domain.
        ValueError: the shape is not (tasks, domains).
    """
    if influence_TK.shape != (len(tasks), len(domains)):
        raise ValueError(f"influence of shape {influence_TK.shape} for {len(tasks)} tasks and {len(domains)} domains")
    for t, k in np.argwhere(~np.isfinite(influence_TK)):
        raise TikmixError(
            f"The influence of the domain '{domains[k]}' on the task '{tasks[t]}' is {influence_TK[t, k]}. The "
            "checkpoint's loss or gradient is not finite there: lower train.learning_rate or raise influence.damping, "
            "and measure again."
        )


def magnitude(influence_TK: FloatArray) -> FloatArray:
    """Return `max_j |S[t, j]|` of each task, and 1 for a task that nothing influences."""
    largest_T = np.abs(influence_TK).max(axis=1)
    return np.where(largest_T > 0, largest_T, 1.0)


def is_helped(influence_TK: FloatArray) -> npt.NDArray[np.bool_]:
    """Return for each task whether any domain helps it, so that the paper's normaliser keeps its sign."""
    is_helped_T: npt.NDArray[np.bool_] = influence_TK.max(axis=1) > _HELPED * magnitude(influence_TK)
    return is_helped_T


def normaliser(influence_TK: FloatArray) -> FloatArray:
    """Return the positive `n_t` of `P̂_t = P_t / n_t`: `max_j S[t, j]`, or `max_j |S[t, j]|` where no domain helps."""
    return np.where(is_helped(influence_TK), influence_TK.max(axis=1), magnitude(influence_TK))


def contrast(influence_TK: FloatArray, reference_K: FloatArray) -> FloatArray:
    """Return `c_tj = S[t, j] − S_t w_ref`: what a domain does for a task beyond what the reference mixture does."""
    contrast_TK: FloatArray = influence_TK - (influence_TK @ reference_K)[:, None]
    # what all domains do alike leaves rounding behind, which is not to be taken for a preference
    is_alike_T = np.ptp(influence_TK, axis=1) <= _ALIKE * np.abs(influence_TK).max(axis=1)
    contrast_TK[is_alike_T] = 0
    return contrast_TK


def gain_scale(contrast_TK: FloatArray) -> FloatArray:
    """Return the positive gain of each task that is told as 1: `max_j c_tj`, or `max_j |c_tj|` where nothing gains."""
    return normaliser(contrast_TK)


def anchor_mixture(
    current_K: FloatArray, parameters: FirstOrderParameters, ngram_K: FloatArray | None = None
) -> FloatArray | None:
    """Return q, the mixture that the entropy is relative to; None for the uniform one.

    Raises:
        ValueError: the parameters ask for the mixture of n-gram models, and there is none.
    """
    if parameters.entropy_anchor == "uniform":
        return None
    chosen_K = ngram_K if parameters.entropy_anchor == "ngram" else current_K
    if chosen_K is None:
        raise ValueError("optimize.anchor is ngram, and there is no mixture of n-gram models")
    # a little of every domain, so that one that was left out may come back
    return (1 - _LEAST_ANCHOR) * chosen_K + _LEAST_ANCHOR / len(chosen_K)


def normaliser_notes(influence_TK: FloatArray, tasks: Sequence[str]) -> list[str]:
    """Say in words which tasks the normaliser treats unlike the others."""
    notes = []
    helped_T = is_helped(influence_TK)
    for task, row_K, helped in zip(tasks, influence_TK, helped_T, strict=True):
        best, worst = float(row_K.max()), float(row_K.min())
        if not row_K.any():
            notes.append(f"No domain influences the task '{task}': it is left out of the decision.")
        elif not helped:
            notes.append(
                f"No domain helps the task '{task}' (influence from {worst:.3g} to {best:.3g}): its influence is "
                "divided by its largest absolute value, for the paper's normaliser would turn its sign around."
            )
        elif -worst > _LOUD * best:
            notes.append(
                f"The task '{task}' gains at most {best:.3g} and loses up to {-worst:.3g}: divided by so small a gain, "
                f"it weighs up to {-worst / best:.0f} times as much as another task. Measure it on more items, or set "
                "optimize.bounds for the domains that harm it."
            )
    return notes
