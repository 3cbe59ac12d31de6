"""Effects as a decision sees them: averaged over rounds and, where gains are of second order, with what domains share.

    effect[t, j] = S[t, j] − S_t w − r [(Q w)_j − wᵀQ w]

is the slope of `gain_t` (`mixture.second_order`) at the current mixture w towards domain j: positive where more of the
domain helps the task. With r = 0 it is the contrast that the paper's objective has, and with one round that of
`influence.parquet`. Its error takes those of the domains to be independent, as their samples are; what the sample of
the task's items moves for all domains alike is in it, though it cancels, so that it errs on the large side. It is of S
alone.

Axes: T tasks, K domains.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tikmix_pipeline.mixture.influence_matrix import contrast
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.simplex import FloatArray


@dataclass(frozen=True, eq=False)
class DecidingEffects:
    """What moving tokens to each domain does for each task, by all that was decided on; both in the units of S."""

    effect_TK: FloatArray
    stderr_TK: FloatArray | None = None
    """None where the errors of S are not known."""


def deciding_effects(
    influence_TK: FloatArray,
    now_K: FloatArray,
    *,
    curved_KK: FloatArray | None = None,
    saturation: float = 0.0,
    stderr_TK: FloatArray | None = None,
) -> DecidingEffects:
    """Return the effects over the current mixture `now_K`, with their errors if those of S are given."""
    effect_TK = contrast(influence_TK, now_K)
    if curved_KK is not None:
        slope_K = curved_KK @ now_K
        effect_TK = effect_TK - saturation * (slope_K - slope_K @ now_K)
    if stderr_TK is None:
        return DecidingEffects(effect_TK)
    share_KK = np.eye(len(now_K)) - now_K
    return DecidingEffects(effect_TK, np.sqrt(np.square(stderr_TK) @ np.square(share_KK).T))


def effect_rows(decision: DecisionRecord) -> list[dict[str, Any]]:
    """Return a row per task and domain: `task`, `domain`, `effect` and `stderr`, which is NaN where it is not known.

    There are none where the decision is not TiKMiX-D's.
    """
    return [
        {
            "task": task,
            "domain": domain,
            "effect": effect,
            "stderr": math.nan if decision.effect_stderr is None else decision.effect_stderr[task][domain],
        }
        for task, of_task in (decision.effect or {}).items()
        for domain, effect in of_task.items()
    ]
