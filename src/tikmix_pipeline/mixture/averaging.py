"""Averaging over rounds: a decision rests on all measurements so far, not on the last one alone.

Influence is local: it says what helps at this checkpoint, and the mixture that follows it changes what would help at
the next. Decided on the last measurement alone, the mixture swings to and fro between rounds and gains less than one
decision kept; decided on the mean of the rounds so far it gains more, and most if a noisy round has less say
(docs/results.md).

Axes: R rounds, T tasks, K domains.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.normaliser import magnitude
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.decision import AveragingParameters

if TYPE_CHECKING:
    import pandas as pd


def averaged_influence(
    tables: Sequence["pd.DataFrame"], domains: Sequence[str], averaging: AveragingParameters
) -> tuple[list[str], FloatArray]:
    """Return the tasks and the influence (T, K) that a decision rests on.

    Args:
        tables: `influence.parquet` of the rounds so far, oldest first; the tasks are those of the last.
        domains: names of axis K.
        averaging: which rounds count, and how much.

    Raises:
        TikmixError: as `average_influence`.
    """
    tasks = list(dict.fromkeys(tables[-1]["task"]))

    def matrix(table: "pd.DataFrame", values: str) -> FloatArray:
        # earlier rounds may have measured more than is asked for now
        wide = table.pivot(index="task", columns="domain", values=values).loc[tasks, [*domains]]
        values_TK: FloatArray = wide.to_numpy(dtype="float64")
        return values_TK

    if averaging.memory == "none":
        return tasks, matrix(tables[-1], "influence")
    stderrs = [matrix(table, "stderr") for table in tables] if averaging.memory == "precision" else None
    return tasks, average_influence([matrix(table, "influence") for table in tables], stderrs)


def average_influence(influences: Sequence[FloatArray], stderrs: Sequence[FloatArray] | None = None) -> FloatArray:
    """Return the running mean of the task-normalised influence, in the units of the last round.

    `S̄[t, j] = m_R,t · Σ_r p_r,t S_r[t, j] / m_r,t` with `m_r,t = max_k |S_r[t, k]|`. All rounds have the same say,
    `p_r,t = 1/R`, or as much as they are certain: `p_r,t ∝ m_r,t² / mean_j stderr_r[t, j]²`. Gradients shrink as
    training goes on, so every round's rows are first brought to [−1, 1]. (By the largest *absolute* influence: the
    paper's `max_k S` may be next to nothing in one round, whose noise would then drown the others.) Multiplying by the
    last round's magnitude gives expected gains in today's units; the decision itself does not depend on the scale of a
    row.

    Args:
        influences: S of each round, oldest first, all over the same tasks and domains.
        stderrs: the standard errors of each, to weigh the rounds by; where a task of any round has none, its rounds
            have the same say.

    Returns:
        (T, K); after one round, that round's influence itself.

    Raises:
        TikmixError: the rounds differ in their numbers of tasks or domains.
    """
    factor_RT = unit_factors(influences)
    row_RTK = np.stack(influences) * factor_RT[:, :, None]
    if stderrs is None:
        mean_TK: FloatArray = row_RTK.mean(axis=0)
        return mean_TK
    variance_RT = (np.square(np.stack(stderrs)).mean(axis=2)) * factor_RT**2
    certain_T = (np.isfinite(variance_RT) & (variance_RT > 0)).all(axis=0)
    precision_RT = 1 / np.where(certain_T, variance_RT, 1.0)
    weighted_TK: FloatArray = np.einsum("rt,rtk->tk", precision_RT / precision_RT.sum(axis=0), row_RTK)
    return weighted_TK


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
