"""What each task's influence is divided by, so that tasks compare.

The paper divides `P_t = Σ_j S[t, j] w_j` by `max_j S[t, j]`, the most that any mixture could gain on task t, so that
`P̂_t = 1` is the best that can be done for it. Where no domain helps a task that number is negative, and dividing by
it turns the task's sign around: the decision would seek out the domain that harms it most. Such a task is divided by
`max_j |S[t, j]|` instead: its least harmful domain keeps its place at the top, and a harm of the usual size, −1,
weighs against the other tasks as their best gain, +1, does.

Axes: T tasks, K domains.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.simplex import FloatArray

_HELPED = 1e-3
"""A domain helps a task if it gains at least this share of the task's largest absolute influence: far below what any
measurement resolves, and far above where the quotient loses its digits."""

_LOUD = 10.0
"""A task whose normalised influence reaches this is worth a word: the others' is 1 at best."""


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
