"""What the objective counts: tasks, or groups of tasks that stand for one ability, each with its weight.

The gain of a group is the mean of its tasks' normalised gains, so that five variants of one benchmark do not outvote
another. With weights ω_u of U targets that sum to U,

    total   Σ_u ω_u P̂_u
    spread  √(Σ_u ω_u (P̂_u − m)² / U)     with m = Σ_u ω_u P̂_u / U

which are the sum and the standard deviation where all weights are equal. A target of weight 0 is left out, U included:
the objective is what it would be without it.

Axes: N mixtures, T tasks, U targets.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.decision import TargetWeightParameters


@dataclass(frozen=True, eq=False)
class Targets:
    """How tasks make up the targets.

    Attributes:
        share_UT: what each task has of a target; a row sums to 1.
        weight_U: ω; they sum to U.
    """

    share_UT: FloatArray
    weight_U: FloatArray

    @classmethod
    def of(cls, tasks: Sequence[str], counts_T: npt.NDArray[np.bool_], parameters: TargetWeightParameters) -> "Targets":
        """Return the targets of these tasks, in the order of their first tasks.

        Args:
            tasks: names of axis T.
            counts_T: the tasks that tell mixtures apart; others are in no target.
            parameters: `task_weights` and `task_groups`; names of tasks that are not there are passed over.
        """
        group_of = {task: group for group, members in parameters.task_groups.items() for task in members}
        weights = parameters.task_weights
        members: dict[tuple[str, str], dict[int, float]] = {}
        for t in np.flatnonzero(counts_T).tolist():
            task = tasks[t]
            target = ("group", group_of[task]) if task in group_of else ("task", task)
            # by itself, a task's weight is its target's; in a group, it is its share of the group
            share = weights.get(task, 1.0) if task in group_of else 1.0
            if share > 0 and weights.get(target[1], 1.0) > 0:
                members.setdefault(target, {})[t] = share
        share_UT = np.zeros((len(members), len(tasks)))
        for u, shares in enumerate(members.values()):
            share_UT[u, [*shares]] = np.array([*shares.values()]) / sum(shares.values())
        return cls(share_UT, balanced([weights.get(name, 1.0) for _, name in members]))

    def _single_tasks(self) -> npt.NDArray[np.bool_] | None:
        """Return the tasks that are targets, if there is no group: their numbers stay as they are, to the last bit."""
        is_used_T: npt.NDArray[np.bool_] = self.share_UT.max(axis=0, initial=0) > 0
        return is_used_T if is_used_T.sum() == len(self.share_UT) else None

    def rows(self, influence_TK: FloatArray) -> FloatArray:
        """Return the influence on the targets, (U, K), from that on tasks."""
        single_T = self._single_tasks()
        row_UK: FloatArray = self.share_UT @ influence_TK if single_T is None else influence_TK[single_T]
        return row_UK

    def gains(self, gain_NT: FloatArray) -> FloatArray:
        """Return the gains of the targets, (N, U), from those of the tasks."""
        single_T = self._single_tasks()
        gain_NU: FloatArray = gain_NT @ self.share_UT.T if single_T is None else gain_NT[:, single_T]
        return gain_NU


def balanced(weights: Sequence[float]) -> FloatArray:
    """Return positive weights scaled to sum to how many they are; exactly 1 where they are equal."""
    weight_U = np.array(weights, dtype=np.float64)
    weight_U /= weight_U.max(initial=0) or 1
    return weight_U * (len(weight_U) / weight_U.sum()) if weight_U.size else weight_U


def total(gain_NU: FloatArray, weight_U: FloatArray) -> FloatArray:
    """Return `Σ_u ω_u P̂_u` over the last axis."""
    return np.asarray((weight_U * gain_NU).sum(axis=-1))


def deviations(gain_NU: FloatArray, weight_U: FloatArray) -> FloatArray:
    """Return `P̂_u − m`, the distance from the weighted mean."""
    mean_N1 = (weight_U * gain_NU).sum(axis=-1, keepdims=True) / max(len(weight_U), 1)
    return np.asarray(gain_NU - mean_N1)


def spread(gain_NU: FloatArray, weight_U: FloatArray) -> FloatArray:
    """Return the weighted standard deviation over the last axis; 0 of nothing."""
    square_NU = np.square(deviations(gain_NU, weight_U))
    return np.asarray(np.sqrt((weight_U * square_NU).sum(axis=-1) / max(len(weight_U), 1)))


def check_tasks(
    parameters: TargetWeightParameters, tasks: Collection[str], decide: Collection[str] | None = None
) -> None:
    """Refuse weights and groups of tasks that are not there, and weights that leave nothing to decide by.

    Args:
        parameters: `task_weights` and `task_groups`.
        tasks: the names there are.
        decide: those among them that decide; None stands for all.

    Raises:
        TikmixError: a name is unknown, a group has a task's name, or no target has a weight.
    """
    groups = parameters.task_groups
    for group, members in groups.items():
        if group in tasks:
            raise TikmixError(
                f"optimize.task_groups.{group} has the name of a task, so that optimize.task_weights would not say "
                "which of them it means. Call the group something else."
            )
        for task in members:
            if task not in tasks:
                raise TikmixError(
                    f"optimize.task_groups.{group} names the task '{task}', which is not there."
                    f"{nearest_name(task, tasks)}"
                )
    for name in parameters.task_weights:
        if name not in tasks and name not in groups:
            raise TikmixError(
                f"optimize.task_weights names '{name}', which is neither a task nor one of optimize.task_groups."
                f"{nearest_name(name, [*tasks, *groups])}"
            )
    deciding = [*(tasks if decide is None else decide)]
    if deciding and not len(Targets.of(deciding, np.ones(len(deciding), dtype=np.bool_), parameters).weight_U):
        raise TikmixError(
            "optimize.task_weights gives 0 to every task that decides, so there is nothing to decide by. Give one of "
            "them a weight."
        )
