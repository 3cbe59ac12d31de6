"""The objective of TiKMiX-D: what it counts, its gradient, and a bound on how much better any mixture could be.

`F(w) = α·std(P̂) − β·Σ_t P̂_t − γ·(H(w) + w·ln q)` with `P̂ = Ŝ w`. The last term is `γ·KL(w ‖ q)`, the distance from
an anchor q; for the uniform one it is the paper's entropy, and the constant `w·ln q` is left out. Where gains are of
second order (`mixture.response`), their sum is less by `½ wᵀA w`, and F has `β/2 · wᵀA w` on top; std stays that of the
linear part. With `optimize.fairness: softmin` F has `−α·softmin(P̂)` in the place of `α·std(P̂)` (`mixture.fairness`),
of gains as they are. F is convex: the standard deviation of an affine function is, the soft minimum is concave, the
linear gain is both, A has no negative eigenvalue, and the entropy is concave. So there is one best value, and the
multipliers of a solution prove how near it comes (`lower_bound`).

What counts are targets: tasks, or groups of tasks that stand for one ability, each with its weight. The gain of a group
is the mean of its tasks' normalised gains, so that five variants of one benchmark do not outvote another. With weights
ω_u of U targets that sum to U,

    total   Σ_u ω_u P̂_u
    spread  √(Σ_u ω_u (P̂_u − m)² / U)     with m = Σ_u ω_u P̂_u / U

which are the sum and the standard deviation where all weights are equal. A target of weight 0 is left out, U included:
the objective is what it would be without it.

Axes: N mixtures, T tasks, U targets, K domains, C constraints.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError, nearest_name, require_known
from tikmix_pipeline.mixture.fairness import SoftLeast
from tikmix_pipeline.mixture.own_share import Logarithms
from tikmix_pipeline.mixture.simplex import Box, FloatArray, Halfspaces, anchored_entropy, entropy
from tikmix_pipeline.parameters.decision import ObjectiveParameters, TargetWeightParameters

KINK = 1e-6
"""std has no gradient where all tasks gain alike; the solver sees `√(std² + KINK²)`, which is never off by more."""

_EMPTY = 1e-12
"""The entropy's gradient is infinite at a weight of 0; below this weight it is taken to stay what it is here."""


@dataclass(frozen=True, eq=False)
class Targets:
    """How tasks make up the targets."""

    share_UT: FloatArray
    """What each task has of a target; a row sums to 1."""
    weight_U: FloatArray
    """ω; they sum to U."""

    @classmethod
    def of(cls, tasks: Sequence[str], counts_T: npt.NDArray[np.bool_], parameters: TargetWeightParameters) -> "Targets":
        """Return the targets of these tasks, in the order of their first tasks.

        Tasks that do not count, as they do not tell mixtures apart, are in no target. Names in `parameters` of tasks
        that are not there are passed over.
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
        return self.share_UT @ influence_TK if single_T is None else influence_TK[single_T]

    def task_shares(self) -> FloatArray:
        """Return what each task has of the mean of the targets, (T,); they sum to 1."""
        shares_T: FloatArray = self.weight_U @ self.share_UT / max(len(self.weight_U), 1)
        return shares_T

    def gains(self, gain_NT: FloatArray) -> FloatArray:
        """Return the gains of the targets, (N, U), from those of the tasks."""
        single_T = self._single_tasks()
        return gain_NT @ self.share_UT.T if single_T is None else gain_NT[:, single_T]


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
    """Refuse weights and groups of tasks that are not there, and weights that leave none of those that `decide`.

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
        require_known(f"optimize.task_groups.{group}", "task", members, tasks)
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


@dataclass(frozen=True, eq=False)
class Objective:
    """F for one influence matrix; its weights are α, β and γ."""

    normalised_UK: FloatArray
    """Ŝ, the influence of each domain on each target, divided by the normaliser of its tasks."""
    uniformity: float
    gain: float
    entropy: float
    anchor_K: FloatArray | None = None
    """q, positive; None for the uniform mixture."""
    weight_U: FloatArray | None = None
    """ω, what each target counts; they sum to U. None for ones."""
    curved_KK: FloatArray | None = None
    """A, symmetric and without negative eigenvalues; None where gains are linear."""
    least: SoftLeast | None = None
    """What is maximised in the place of a small std; None where std is what counts."""
    logarithms: Logarithms | None = None
    """One sum that the total gain has on top; None where it has none."""

    @classmethod
    def of(
        cls,
        normalised_TK: FloatArray,
        targets: Targets,
        parameters: ObjectiveParameters,
        anchor_K: FloatArray | None,
        curved_TKK: FloatArray | None = None,
        reference_K: FloatArray | None = None,
    ) -> "Objective":
        """Return the objective over targets, from the normalised influence on tasks.

        `curved_TKK` are the matrices by whose forms, `½ wᵀA_t w`, the normalised gain of each task is less; it is
        nothing at the reference, which only a soft minimum needs to know.
        """
        curved_UKK = None if curved_TKK is None else np.tensordot(targets.share_UT, curved_TKK, 1)
        rows_UK, least = targets.rows(normalised_TK), None
        if parameters.fairness == "softmin":
            least = SoftLeast(parameters.temperature, rows_UK, targets.weight_U, curved_UKK, reference_K)
        return cls(
            normalised_UK=rows_UK,
            uniformity=parameters.spread_weight,
            gain=parameters.gain_of(len(targets.weight_U)),
            entropy=parameters.entropy_weight,
            anchor_K=anchor_K,
            weight_U=targets.weight_U,
            curved_KK=None if curved_UKK is None else np.tensordot(targets.weight_U, curved_UKK, 1),
            least=least,
        )

    def _weights(self) -> FloatArray:
        return np.ones(len(self.normalised_UK)) if self.weight_U is None else self.weight_U

    def terms(self, weights_K: FloatArray) -> dict[str, float]:
        """Return `std(P̂)` or `softmin(P̂)` over targets, `ΣP̂` and `H(w) + w·ln q`, each without its weight."""
        gains_U = self.normalised_UK @ weights_K
        std = float(spread(gains_U, self._weights()))
        return {
            **({"std": std} if self.least is None else {"softmin": self.least.value(weights_K)}),
            "gain": float(total(gains_U, self._weights())) - self._curved(weights_K) + self._logarithm(weights_K),
            "entropy": anchored_entropy(weights_K, self.anchor_K),
        }

    def _curved(self, weights_K: FloatArray) -> float:
        return 0.0 if self.curved_KK is None else float(weights_K @ self.curved_KK @ weights_K) / 2

    def _logarithm(self, weights_K: FloatArray) -> float:
        return 0.0 if self.logarithms is None else float(self.logarithms.at(weights_K[None])[0, 0])

    def value(self, weights_K: FloatArray, kink: float = 0.0) -> float:
        """Return `F(w) = α·std(P̂) − β·ΣP̂ − γ·H(w)`, with `√(std² + kink²)` for std, or `−softmin(P̂)` in its place."""
        terms = self.terms(weights_K)
        uneven = float(np.hypot(terms["std"], kink)) if self.least is None else -terms["softmin"]
        return self.uniformity * uneven - self.gain * terms["gain"] - self.entropy * terms["entropy"]

    def gradient(self, weights_K: FloatArray) -> FloatArray:
        """Return `∇F = c(w) + γ (ln w + 1)` with the kink of std rounded off."""
        return self._slope(weights_K) + self.entropy * (np.log(np.maximum(weights_K, _EMPTY)) + 1)

    def sum_multiplier(self, weights_K: FloatArray) -> float:
        """Return `w·∇F`, the multiplier of `Σ_j w_j = 1` of a mixture that nothing else holds."""
        return float(weights_K @ self.gradient(weights_K))

    def _slope(self, weights_K: FloatArray) -> FloatArray:
        """Return `c(w)`, the gradient but for the entropy's.

        It is `α Ŝᵀ(ω (P̂ − mean P̂)) / (U √(std² + KINK²)) − β (Ŝᵀω − A w) − γ ln q`. As std is convex and homogeneous,
        and the form convex, `α·std(Ŝ v) − β·(Σ(Ŝ v) − ½ vᵀA v) − γ v·ln q ≥ c(w)·v − β/2 · wᵀA w` for every mixture v.
        Of a soft minimum it has the gradient in the place of std's, and what that bound then has on top is `_above`.
        """
        anchored_K = np.zeros_like(weights_K) if self.anchor_K is None else self.entropy * np.log(self.anchor_K)
        if self.curved_KK is not None:
            anchored_K = anchored_K - self.gain * (self.curved_KK @ weights_K)
        if self.logarithms is not None:
            anchored_K = anchored_K + self.gain * self.logarithms.slopes(weights_K)[0]
        gains_U = self.normalised_UK @ weights_K
        if not gains_U.size:
            return -anchored_K
        weight_U = self._weights()
        if self.least is not None:
            total_K: FloatArray = self.normalised_UK.T @ (weight_U * self.gain)
            return -self.uniformity * self.least.slope(weights_K) - total_K - anchored_K
        scale = len(gains_U) * np.hypot(spread(gains_U, weight_U), KINK)
        pull_U = self.uniformity * deviations(gains_U, weight_U) / scale
        slope_K: FloatArray = self.normalised_UK.T @ (weight_U * (pull_U - self.gain))
        return slope_K - anchored_K

    def _above(self, weights_K: FloatArray) -> float:
        """Return by how much the tangents of what is not homogeneous, as std is, are above lines through 0."""
        above = 0.0
        if self.least is not None:
            above = self.uniformity * float(self.least.slope(weights_K) @ weights_K - self.least.value(weights_K))
        if self.logarithms is not None:
            along = float(self.logarithms.slopes(weights_K)[0] @ weights_K)
            above += self.gain * (along - self._logarithm(weights_K))
        return above

    def lower_bound(
        self,
        weights_K: FloatArray,
        sum_multiplier: float,
        multipliers_C: FloatArray,
        *,
        constraints: Halfspaces,
        box: Box,
    ) -> float:
        """Return a value that F does not go below on any mixture v inside the box with `rows v ≥ least`.

        By Lagrangian duality, whatever the constraints are about (least gains of tasks, limits on groups): for any μ
        and any λ ≥ 0 a mixture within them has `μ (Σ_j v_j − 1) = 0` and `λ·(rows v − least) ≥ 0`. Both taken off
        `F(v) ≥ c(w)·v + γ Σ_j v_j ln v_j − β/2 · wᵀA w`, for any w, with `r = c(w) − rowsᵀλ − μ`,
        `F(v) ≥ μ + λ·least − β/2 · wᵀA w + Σ_j min_{low ≤ v_j ≤ high} (r_j v_j + γ v_j ln v_j)`.
        Each minimum is at `v_j = exp(−r_j/γ − 1)`, clipped to the box, or in a corner if γ = 0. At the best mixture and
        its multipliers the two sides are equal.
        """
        low_K, high_K = box
        residual_K = self._slope(weights_K) - constraints.rows_GK.T @ multipliers_C - sum_multiplier
        if self.entropy:
            exponent_K = np.minimum(-residual_K / self.entropy - 1, 0)  # no weight is above 1, and exp may not overflow
            least_K = np.clip(np.exp(exponent_K), low_K, high_K)
        else:
            least_K = np.where(residual_K > 0, low_K, high_K)
        inner = float(residual_K @ least_K) - self.entropy * entropy(least_K)
        constant = sum_multiplier + float(multipliers_C @ constraints.least_G)
        return constant + inner - self.gain * self._curved(weights_K) + self._above(weights_K)
