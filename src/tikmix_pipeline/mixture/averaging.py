"""Deciding on all rounds so far, not on the last measurement alone.

Influence is local: it says what helps at this checkpoint, and the mixture that follows it changes what would help at
the next. Decided on the last measurement alone, the mixture swings to and fro between rounds and gains less than one
decision kept; decided on the mean of the rounds so far it gains more, and most if a noisy round has less say
(docs/results.md).

Axes: R rounds, T tasks, K domains.
"""

from collections.abc import Sequence

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.normaliser import magnitude
from tikmix_pipeline.mixture.simplex import FloatArray


def remember(influences: Sequence[FloatArray], stderrs: Sequence[FloatArray] | None = None) -> FloatArray:
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
    factors_RT = in_todays_units(influences)
    rows_RTK = np.stack(influences) * factors_RT[:, :, None]
    if stderrs is None:
        mean_TK: FloatArray = rows_RTK.mean(axis=0)
        return mean_TK
    variance_RT = (np.square(np.stack(stderrs)).mean(axis=2)) * factors_RT**2
    certain_T = (np.isfinite(variance_RT) & (variance_RT > 0)).all(axis=0)
    precision_RT = 1 / np.where(certain_T, variance_RT, 1.0)
    weighted_TK: FloatArray = np.einsum("rt,rtk->tk", precision_RT / precision_RT.sum(axis=0), rows_RTK)
    return weighted_TK


def in_todays_units(influences: Sequence[FloatArray]) -> FloatArray:
    """Return what the rows of each round are multiplied with before their mean is taken: `m_R,t / m_r,t`, (R, T).

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
