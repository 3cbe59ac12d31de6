"""The simplex: mixtures checked, named, rounded and measured; the prior, mixture 0; and projections.

The mixture nearest to a point x, within a box and linear constraints,

    minimise    ½ |w − x|²
    subject to  Σ_j w_j = 1,  low ≤ w ≤ high,  rows w ≥ least

is `clip(x + shift, low, high)` for the one shift at which it sums to 1, where no row stands in the way. Otherwise it is
a least-distance problem, which Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23) solve exactly, in
finitely many steps, as a non-negative least-squares problem. A point takes 0.1 ms with 26 domains and 12 constraints.

Axes: N points, K domains, G constraints, C constraints and bounds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError, quoted, require_known

FloatArray = npt.NDArray[np.float64]

Box = tuple[FloatArray, FloatArray]
"""The smallest weights `low_K` and the largest `high_K`."""

SUM_TOLERANCE = 1e-6
"""How far from 1 the weights of a mixture may sum."""

ROUNDING = 1e-9
"""How far a mixture may miss a bound: 26 × (1/26) need not be 1 in floats."""

_SMALLEST = np.finfo(np.float64).tiny
_NOWHERE = 1e-6


def check_mixture(weights: Mapping[str, float], domains: Sequence[str], source: str) -> FloatArray:
    """Return the weights in the order of `domains`, scaled to sum to 1 as nearly as floats can.

    `source` is the parameter or file that they come from, for messages.

    Raises:
        TikmixError: a name is unknown or missing, a weight is negative or not finite, or the sum is off 1 by more than
            `SUM_TOLERANCE`.
    """
    require_known(source, "domain", weights, domains)
    missing = [domain for domain in domains if domain not in weights]
    if missing:
        raise TikmixError(f"{source} gives no weight for {quoted(missing)}. Give every domain one; 0 leaves it out.")
    weights_K = np.array([weights[domain] for domain in domains], dtype=np.float64)
    for domain, weight in zip(domains, weights_K, strict=True):
        if not (math.isfinite(weight) and weight >= 0):
            raise TikmixError(f"{source}.{domain} is {weight}; a weight is a number from 0 to 1.")
    total = math.fsum(weights_K)
    if abs(total - 1) > SUM_TOLERANCE:
        raise TikmixError(f"The weights of {source} sum to {total:.9g} instead of 1. Divide each of them by that sum.")
    return weights_K / total


def by_name(names: Sequence[str], values: FloatArray) -> dict[str, float]:
    """Return the values of one axis under the names of that axis."""
    return dict(zip(names, values.tolist(), strict=True))


def prior_mixture(
    prior: Literal["proportional", "uniform"] | Mapping[str, float], tokens: Mapping[str, float]
) -> dict[str, float]:
    """Return the weight of each domain in mixture 0, under which the first chunk trains before anything is measured.

    With training tokens N_j, `proportional` is `w_j = N_j / Σ_k N_k`, the natural mixture; `uniform` is `w_j = 1/K`.

    Raises:
        TikmixError: the given weights are no mixture of these domains, or there is not a single token.
    """
    if prior == "uniform":
        return dict.fromkeys(tokens, 1 / len(tokens))
    if prior == "proportional":
        total = sum(tokens.values())
        if total == 0:
            raise TikmixError("tikmix.prior is proportional to the domains' tokens, but no domain has any.")
        return {domain: count / total for domain, count in tokens.items()}
    return by_name(list(tokens), check_mixture(prior, list(tokens), "tikmix.prior"))


def round_to_simplex(weights_K: FloatArray, decimals: int) -> FloatArray:
    """Round a mixture to `decimals` by largest remainder.

    Each weight is rounded down to a whole number of units of 10^-decimals; the units left over go one each to the
    largest remainders, the earlier domain first among equals. So no weight moves by a whole unit, a zero stays zero,
    and the decimals sum to exactly 1. (Binary floats only approximate decimals: `math.fsum` of the result is 1 to
    within its last bit, the sum of `Decimal(str(weight))` is 1.)

    The weights are non-negative and not all zero; they are first scaled to sum to 1 exactly.
    """
    units = 10**decimals
    exact = [Fraction(weight) for weight in weights_K.tolist()]
    quotas = [units * weight / sum(exact) for weight in exact]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda k: counts[k] - quotas[k])
    for k in by_remainder[: units - sum(counts)]:
        counts[k] += 1
    return np.array([count / units for count in counts])


def entropy(weights_K: FloatArray) -> float:
    """Return `H(w) = −Σ_j w_j ln w_j` in nats, with `0 ln 0 = 0`."""
    return float(-(weights_K * np.log(np.maximum(weights_K, _SMALLEST))).sum())


def anchored_entropy(weights_K: FloatArray, anchor_K: FloatArray | None) -> float:
    """Return `H(w) + w·ln q`, by which the distance from an anchor falls; `H(w)` without one."""
    return entropy(weights_K) + (0.0 if anchor_K is None else float(weights_K @ np.log(anchor_K)))


def project(weights_NK: FloatArray, box: Box, groups: "Halfspaces | None" = None) -> FloatArray:
    """Return for each row the mixture within the box and the groups' limits that is nearest in the Euclidean norm.

    Rows that a group stands in the way of are projected one by one, the others all at once. They sum to 1, and some
    mixture is within the box and the limits.
    """
    low_K, high_K = box
    outside_N = ((weights_NK < low_K) | (weights_NK > high_K)).any(axis=1)
    inside_NK = weights_NK.copy()
    inside_NK[outside_N] = project_onto_box(weights_NK[outside_N], box, halvings=50)
    if groups is not None:
        beyond_N = groups.shortfall(inside_NK) > 0
        inside_NK[beyond_N] = groups.nearest(weights_NK[beyond_N], box)
    return inside_NK


def project_onto_box(weights_NK: FloatArray, box: Box, *, halvings: int) -> FloatArray:
    """Return for each row the nearest mixture within the box; the shift is found by so many halvings."""
    low_K, high_K = box
    below_N1 = (low_K - weights_NK).min(axis=1, keepdims=True)
    above_N1 = (high_K - weights_NK).max(axis=1, keepdims=True)
    for _ in range(halvings):
        shift_N1 = (below_N1 + above_N1) / 2
        is_short_N1 = np.clip(weights_NK + shift_N1, low_K, high_K).sum(axis=1, keepdims=True) < 1
        below_N1, above_N1 = np.where(is_short_N1, shift_N1, below_N1), np.where(is_short_N1, above_N1, shift_N1)
    nearest_NK: FloatArray = np.clip(weights_NK + above_N1, low_K, high_K)
    return nearest_NK


@dataclass(frozen=True, eq=False)
class Halfspaces:
    """Constraints `rows w ≥ least`."""

    rows_GK: FloatArray
    least_G: FloatArray

    def shortfall(self, weights_NK: FloatArray) -> FloatArray:
        """Return by how much each point misses the constraint that it misses most, 0 if none; shape (N,)."""
        short_N: FloatArray = (self.least_G - weights_NK @ self.rows_GK.T).max(axis=1, initial=0)
        return short_N

    def has_room(self, box: Box) -> bool:
        """Say whether any mixture is within the box and the constraints, by more than rounding."""
        low_K, high_K = box
        if (low_K > high_K).any() or low_K.sum() > 1 or high_K.sum() < 1:
            return False
        if not len(self.least_G):
            return True
        from scipy.optimize import linprog  # its import takes half a second

        found = linprog(
            np.zeros(len(low_K)),
            A_ub=-self.rows_GK,
            b_ub=-self.least_G - ROUNDING,
            A_eq=np.ones((1, len(low_K))),
            b_eq=[1.0],
            bounds=np.column_stack(box),
            options={"primal_feasibility_tolerance": 1e-10},
        )
        return bool(found.status == 0)

    def nearest(self, weights_NK: FloatArray, box: Box) -> FloatArray:
        """Return for each point the mixture nearest to it within the box and the constraints.

        The least d with `C d ≥ h` is `−r_1..K / r_K+1` for the residual r of `min_{u ≥ 0} |[C h]ᵀ u − e_K+1|`.

        Raises:
            ValueError: there is none.
        """
        from scipy.optimize import nnls  # its import takes half a second

        low_K, high_K = box
        identity_KK, ones_1K = np.eye(len(low_K)), np.ones((1, len(low_K)))
        is_capped_K = high_K < 1
        rows_CK = np.vstack([identity_KK, -identity_KK[is_capped_K], ones_1K, -ones_1K, self.rows_GK])
        least_C = np.concatenate([low_K, -high_K[is_capped_K], [1.0, -1.0], self.least_G])
        wanted = np.append(np.zeros(len(low_K)), 1.0)
        nearest_NK = np.empty_like(weights_NK)
        for n, short_C in enumerate(least_C - weights_NK @ rows_CK.T):
            system = np.vstack([rows_CK.T, short_C])
            residual = system @ nnls(system, wanted, maxiter=30 * len(least_C))[0] - wanted
            # r_K+1 is −1/(1 + |d|²), which is nothing only where d is without bound
            if residual[-1] > -_NOWHERE:
                raise ValueError("no mixture satisfies the box and the constraints")
            nearest_NK[n] = np.clip(weights_NK[n] - residual[:-1] / residual[-1], low_K, high_K)
        return nearest_NK
