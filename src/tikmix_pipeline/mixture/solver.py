"""The solver behind TiKMiX-D: SLSQP, with a proof of how near the best its mixture is.

The problem is convex, so the multipliers of a solution bound what is left to gain (`Objective.lower_bound`). The one
start of the paper is all but always enough for that to be nothing; where SLSQP stops early, other starts follow.

Axes: T least gains, K domains, G limits on groups, C constraints: the gains' and then the groups'.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.influence_matrix import magnitude
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.objective import KINK, Objective
from tikmix_pipeline.mixture.simplex import FloatArray, Halfspaces

_STARTS = 8
_OPTIMAL = 1e-6
"""The search ends when no mixture can be better by more than this share of the objective."""
_FEASIBLE = 1e-8
"""By how much a mixture may miss a constraint, in weight or in shares of a task's largest influence."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A mixture, the multipliers that prove most about it, and its distance from the best.

    The multipliers need not be those of the run that found the mixture: where the reference is the best there is, no
    run finds a better one, but each says what holds it there. Where several sets of them would do (constraints that
    repeat each other, or leave one mixture) one is at least what loosening its constraint alone would save. Those of
    bounds on weights are positive for lower ones, negative for upper ones.
    """

    weights_K: FloatArray
    value: float
    bound_multipliers_K: FloatArray
    gain_multipliers_T: FloatArray
    """Of the least gains, none where there are none."""
    group_multipliers_G: FloatArray
    gap: float
    """No mixture within the constraints has an F lower by more than this."""


def minimise(
    objective: Objective, bounds: Bounds, reference_K: FloatArray, *, gains: LeastGains | None = None
) -> Solution:
    """Return the best feasible mixture found: at worst the reference itself, which satisfies every constraint.

    Starts: the uniform mixture, as in the paper; the reference; then the best so far for as long as that helps, for
    there SLSQP begins with a fresh Hessian. They end as soon as the bounds met on the way prove the best so far. The
    least `gains` are against the reference, which is inside the bounds.
    """
    held = LeastGains.none(reference_K) if gains is None else gains
    groups = bounds.halfspaces()
    scaled = _Scaled.of(held, groups)
    no_multipliers_C = np.zeros(len(held) + len(groups.least_G))
    best = _Found(reference_K, objective.value(reference_K), objective.sum_multiplier(reference_K), no_multipliers_C)
    proof = best
    uniform_K = bounds.project(np.full_like(reference_K, 1 / len(reference_K)))
    lower_bound = -np.inf
    for attempt in range(_STARTS):
        start_K = (uniform_K, reference_K)[attempt] if attempt < 2 else best.weights_K
        found = _slsqp(objective, bounds, start_K, scaled)
        proven = objective.lower_bound(
            found.weights_K,
            found.sum_multiplier,
            found.multipliers_C,
            constraints=_linear_at(found.weights_K, held, groups),
            box=bounds.box(),
        )
        if proven > lower_bound:  # not so for the NaN of a run that failed
            lower_bound, proof = proven, found
        is_better = found.value < best.value and _is_feasible(found.weights_K, scaled)
        best = found if is_better else best
        gap = float(max(0.0, best.value - lower_bound))
        if gap <= _OPTIMAL * max(1.0, abs(best.value)) or (attempt >= 2 and not is_better):
            break
    return Solution(
        weights_K=best.weights_K,
        value=best.value,
        # by the run's own mixture: where std has a kink, the gradient a hair away is another
        bound_multipliers_K=objective.gradient(proof.weights_K)
        - _linear_at(proof.weights_K, held, groups).rows_GK.T @ proof.multipliers_C
        - proof.sum_multiplier,
        gain_multipliers_T=proof.multipliers_C[: len(held)],
        group_multipliers_G=proof.multipliers_C[len(held) :],
        gap=gap,
    )


def _linear_at(weights_K: FloatArray, gains: LeastGains, groups: Halfspaces) -> Halfspaces:
    """Return all constraints, those that bend by their tangents at a mixture."""
    tangent = gains.tangent(weights_K)
    return Halfspaces(np.vstack([tangent.rows_GK, groups.rows_GK]), np.concatenate([tangent.least_G, groups.least_G]))


@dataclass(frozen=True, eq=False)
class _Found:
    """What SLSQP ended with: μ is the multiplier of `Σ_j w_j = 1`, λ those of the constraints."""

    weights_K: FloatArray
    value: float
    sum_multiplier: float
    multipliers_C: FloatArray


@dataclass(frozen=True, eq=False)
class _Scaled:
    """The constraints in the form that suits SLSQP.

    On the simplex `(a − m) w` is `a w − m`, so a row less its mean asks the same and no longer overlaps with
    `Σ_j w_j = 1`; it is then scaled to a largest entry of ±1, so that one tolerance fits all. A task that all domains
    serve alike asks nothing, nor does a group of all domains; as constraints they would only repeat the sum and make
    SLSQP stumble.
    """

    varies_C: npt.NDArray[np.bool_]
    mean_C: FloatArray
    scale_C: FloatArray
    gains: LeastGains
    groups: Halfspaces

    @classmethod
    def of(cls, gains: LeastGains, groups: Halfspaces) -> "_Scaled":
        """Return the constraints on gains, and then those of groups."""
        rows_CK = np.vstack([gains.rows_CK, groups.rows_GK])
        varies_C = np.ptp(rows_CK, axis=1) > _FEASIBLE * magnitude(rows_CK)
        varies_C[: len(gains)] |= gains.bends
        mean_C = rows_CK[varies_C].mean(axis=1)
        centred_CK = rows_CK[varies_C] - mean_C[:, None]
        scale_C = magnitude(centred_CK)
        is_gain_C, varies_G = varies_C[: len(gains)], varies_C[len(gains) :]
        count = int(is_gain_C.sum())
        least_G = (groups.least_G[varies_G] - mean_C[count:]) / scale_C[count:]
        scaled = gains.take(is_gain_C).scaled(mean_C[:count], scale_C[:count])
        of_groups = Halfspaces(centred_CK[count:] / scale_C[count:, None], least_G)
        return cls(varies_C, mean_C, scale_C, scaled, of_groups)

    def __len__(self) -> int:
        """Return how many constraints ask anything."""
        return len(self.scale_C)

    def room(self, weights_K: FloatArray) -> FloatArray:
        """Return by how much a mixture is within each constraint."""
        linear = _linear_at(weights_K, self.gains, self.groups)
        room_C: FloatArray = linear.rows_GK @ weights_K - linear.least_G
        return room_C

    def slopes(self, weights_K: FloatArray) -> FloatArray:
        """Return how fast that room grows with each weight, (C, K)."""
        return _linear_at(weights_K, self.gains, self.groups).rows_GK

    def unscaled(self, multipliers: FloatArray) -> tuple[float, FloatArray]:
        """Return μ and λ for `Σ_j w_j = 1` and `rows w ≥ least` from the multipliers of the form above."""
        multipliers_C = np.zeros(len(self.varies_C))
        multipliers_C[self.varies_C] = np.maximum(multipliers[1:], 0) / self.scale_C
        return float(multipliers[0] - multipliers_C[self.varies_C] @ self.mean_C), multipliers_C


def _slsqp(objective: Objective, bounds: Bounds, start_K: FloatArray, scaled: _Scaled) -> _Found:
    """Run SLSQP once. The result is inside the box; whether it satisfies the other constraints is to be checked."""
    from scipy.optimize import minimize  # its import takes half a second

    low_K, high_K = bounds.box()
    constraints: list[dict[str, Any]] = [
        {"type": "eq", "fun": lambda w_K: w_K.sum() - 1, "jac": lambda w_K: np.ones((1, len(w_K)))}
    ]
    if len(scaled):
        constraints.append({"type": "ineq", "fun": scaled.room, "jac": scaled.slopes})
    result = minimize(
        lambda w_K: objective.value(w_K, KINK),
        start_K,
        jac=objective.gradient,
        bounds=np.column_stack([low_K, high_K]),
        constraints=constraints,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    weights_K = np.clip(result.x, low_K, high_K)
    # SciPy gives none back where the box is a point
    unheld = np.append(objective.sum_multiplier(weights_K), np.zeros(len(scaled)))
    multipliers = result.get("multipliers", unheld)
    return _Found(weights_K, objective.value(weights_K), *scaled.unscaled(multipliers))


def _is_feasible(weights_K: FloatArray, scaled: _Scaled) -> bool:
    """Return whether a mixture inside the box sums to 1 and satisfies the constraints."""
    is_mixture = abs(weights_K.sum() - 1) <= _FEASIBLE
    return is_mixture and bool(np.all(scaled.room(weights_K) >= -_FEASIBLE))
