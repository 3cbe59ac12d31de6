"""The solver behind TiKMiX-D: SLSQP, with a proof of how near the best its mixture is.

The problem is convex, so the multipliers of a solution bound what is left to gain (`Objective.lower_bound`). The one
start of the paper is all but always enough for that to be nothing; where SLSQP stops early, other starts follow.

Axes: T tasks, K domains.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.normaliser import magnitude
from tikmix_pipeline.mixture.objective import KINK, Objective
from tikmix_pipeline.mixture.simplex import FloatArray

_STARTS = 8
_OPTIMAL = 1e-6
"""The search ends when no mixture can be better by more than this share of the objective."""
_FEASIBLE = 1e-8
"""By how much a mixture may miss a constraint, in weight or in shares of a task's largest influence."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A mixture, the multipliers the solver ended with (0 where it did not run), and its distance from the best.

    Attributes:
        weights_K: the mixture.
        value: its objective F.
        sum_price: μ, the multiplier of `Σ_j w_j = 1`.
        gain_prices_T: λ, the multipliers of the Pareto constraints.
        gap: no mixture within the constraints has an F lower by more than this.
    """

    weights_K: FloatArray
    value: float
    sum_price: float
    gain_prices_T: FloatArray
    gap: float = np.inf


def minimise(objective: Objective, bounds: Bounds, reference_K: FloatArray, *, pareto: bool) -> Solution:
    """Return the best feasible mixture found: at worst the reference itself, which satisfies every constraint.

    Starts: the uniform mixture, as in the paper; the reference; then the best so far for as long as that helps, for
    there SLSQP begins with a fresh Hessian. They end as soon as the bounds met on the way prove the best so far.

    Args:
        objective: F.
        bounds: the box of weights.
        reference_K: a mixture inside the bounds.
        pareto: whether no task may gain less than under the reference.
    """
    least_gains_T = objective.normalised_TK @ reference_K
    no_worse = _NoWorse.than(reference_K, objective.normalised_TK) if pareto else None
    best = Solution(reference_K, objective.value(reference_K), 0.0, np.zeros_like(least_gains_T))
    uniform_K = bounds.project(np.full_like(reference_K, 1 / len(reference_K)))
    lower_bound = -np.inf
    for attempt in range(_STARTS):
        start_K = (uniform_K, reference_K)[attempt] if attempt < 2 else best.weights_K
        found = _slsqp(objective, bounds, start_K, no_worse)
        proven = objective.lower_bound(
            found.weights_K, found.sum_price, found.gain_prices_T, least_gains_T=least_gains_T, box=bounds.box()
        )
        lower_bound = np.fmax(lower_bound, proven)
        is_better = found.value < best.value and _is_feasible(found.weights_K, no_worse)
        best = found if is_better else best
        best = replace(best, gap=float(max(0.0, best.value - lower_bound)))
        if best.gap <= _OPTIMAL * max(1.0, abs(best.value)) or (attempt >= 2 and not is_better):
            break
    return best


@dataclass(frozen=True, eq=False)
class _NoWorse:
    """The Pareto constraints `rows w ≥ least`, in the form that suits SLSQP.

    On the simplex `(Ŝ_t − m_t) w` is `Ŝ_t w − m_t`, so a row less its mean asks the same and no longer overlaps with
    `Σ_j w_j = 1`; it is then scaled to a largest entry of ±1, so that one tolerance fits all. A task that all domains
    serve alike asks nothing; as a constraint it would only repeat the sum and make SLSQP stumble.
    """

    varies_T: npt.NDArray[np.bool_]
    mean_T: FloatArray
    scale_T: FloatArray
    rows_TK: FloatArray
    least_T: FloatArray

    @classmethod
    def than(cls, reference_K: FloatArray, normalised_TK: FloatArray) -> "_NoWorse":
        varies_T = np.ptp(normalised_TK, axis=1) > _FEASIBLE * magnitude(normalised_TK)
        mean_T = normalised_TK[varies_T].mean(axis=1)
        centred_TK = normalised_TK[varies_T] - mean_T[:, None]
        scale_T = magnitude(centred_TK)
        rows_TK = centred_TK / scale_T[:, None]
        return cls(varies_T, mean_T, scale_T, rows_TK, rows_TK @ reference_K)

    def prices(self, multipliers: FloatArray) -> tuple[float, FloatArray]:
        """Return μ and λ for `Σ_j w_j = 1` and `Ŝ w ≥ Ŝ w_reference` from the multipliers of the form above."""
        gain_prices_T = np.zeros(len(self.varies_T))
        gain_prices_T[self.varies_T] = np.maximum(multipliers[1:], 0) / self.scale_T
        return float(multipliers[0] - gain_prices_T[self.varies_T] @ self.mean_T), gain_prices_T


def _slsqp(objective: Objective, bounds: Bounds, start_K: FloatArray, no_worse: _NoWorse | None) -> Solution:
    """Run SLSQP once. The result is inside the box; whether it satisfies the other constraints is to be checked."""
    from scipy.optimize import minimize  # its import takes half a second

    low_K, high_K = bounds.box()
    constraints: list[dict[str, Any]] = [
        {"type": "eq", "fun": lambda w_K: w_K.sum() - 1, "jac": lambda w_K: np.ones((1, len(w_K)))}
    ]
    if no_worse is not None and no_worse.least_T.size:
        rows_TK, least_T = no_worse.rows_TK, no_worse.least_T
        constraints.append({"type": "ineq", "fun": lambda w_K: rows_TK @ w_K - least_T, "jac": lambda _: rows_TK})
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
    sum_price, gain_prices_T = float(result.multipliers[0]), np.zeros(len(objective.normalised_TK))
    if no_worse is not None:
        sum_price, gain_prices_T = no_worse.prices(result.multipliers)
    return Solution(weights_K, objective.value(weights_K), sum_price, gain_prices_T)


def _is_feasible(weights_K: FloatArray, no_worse: _NoWorse | None) -> bool:
    """Return whether a mixture inside the box sums to 1 and gains on every task what it must."""
    if abs(weights_K.sum() - 1) > _FEASIBLE:
        return False
    return no_worse is None or bool(np.all(no_worse.rows_TK @ weights_K >= no_worse.least_T - _FEASIBLE))
