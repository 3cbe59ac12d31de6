"""c₁ and r of the response model from a few branches of the checkpoint, and what these say of other mixtures.

The gain over the reference that branch n had on target t is

    y[n, t] = c₁ x[n, t] − d z[n] + noise        with x = S_t·(w_n − w_ref), z = ½ (w_nᵀQw_n − w_refᵀQ w_ref), d = c₁ r,

linear in c₁ and d, which all targets share. A few branches say little of the two apart, so the rule for r counts as one
more measurement: `d − r₀ c₁ = 0`, off by half of r₀ as often as not (`_RULE`). With it the fit is a ridge regression,
with the intervals of one. What branches have not told is said by the residuals, with at least one degree of freedom.

Axes: N branches, T targets, K domains, M other mixtures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tikmix_pipeline.mixture.heldout_branches import HeldoutOfBranches
from tikmix_pipeline.mixture.second_order import bend
from tikmix_pipeline.mixture.simplex import FloatArray

_RULE = 0.5
"""The standard error of the rule for r, as a share of it: over surfaces it was off by that much."""

_FURTHEST = 5.0
"""How many times the rule r may be, or the rule r: what lies beyond is noise."""


@dataclass(frozen=True, eq=False)
class FittedResponse:
    """What branches say of the mean gain of their targets."""

    scale: float
    """c₁, nats per unit of S."""
    saturation: float
    """r; that of the rule where branches do not tell the scale."""
    is_told: bool
    """Whether the scale is above its standard error: else branches say nothing of gains, in nats or otherwise."""
    covariance: FloatArray
    """Of c₁ and d, over the variance of the noise, (2, 2)."""
    noise: float
    """Standard deviation of a branch's mean gain around the fit, in nats."""
    freedom: float
    """Degrees of freedom of that."""

    def mean_gain(self, x_M: FloatArray, z_M: FloatArray) -> FloatArray:
        """Return the expected mean gain of mixtures, in nats, (M,)."""
        gain_M: FloatArray = self.scale * (x_M - self.saturation * z_M)
        return gain_M

    def half_width(self, x_M: FloatArray, z_M: FloatArray, level: float) -> FloatArray:
        """Return half the width of the interval that a branch's mean gain lies in with a probability, (M,)."""
        from scipy.stats import t

        row_M2 = np.column_stack([x_M, -z_M])
        variance_M = 1 + np.einsum("mi,ij,mj->m", row_M2, self.covariance, row_M2)
        width_M: FloatArray = t.ppf((1 + level) / 2, self.freedom) * self.noise * np.sqrt(variance_M)
        return width_M


@dataclass(frozen=True, eq=False)
class MeasuredResponse:
    """What branches of a checkpoint have told."""

    fitted: FittedResponse
    branches: int
    losses: Mapping[str, float]
    """Of each domain's text and of each task at the checkpoint, in nats per token."""
    bytes_per_token: Mapping[str, float] = field(default_factory=dict)
    """UTF-8 bytes of each text per loss-carrying token, where a guardrail asks for them."""
    heldout: HeldoutOfBranches | None = None
    """What they have of held-out text, where they were scored on it."""


def coordinates(
    mean_K: FloatArray, curved_KK: FloatArray, weights_NK: FloatArray, reference_K: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return x and z of mixtures: what they gain to first order, and what bends it back, over a reference, (N,)."""
    x_N: FloatArray = (weights_NK - reference_K) @ mean_K
    return x_N, bend(weights_NK, reference_K, curved_KK)


def fit_response(x_N: FloatArray, z_N: FloatArray, gain_N: FloatArray, rule: float) -> FittedResponse:
    """Fit the mean gain of branches over the reference's, whose own branch may be among them and says nothing.

    Args:
        gain_N: measured, in nats.
        rule: r₀.
    """
    counted_N = (np.abs(x_N) > 0) | (np.abs(z_N) > 0)
    row_N2, gain_N = np.column_stack([x_N, -z_N])[counted_N], gain_N[counted_N]
    by_rule_N = row_N2 @ np.array([1.0, rule])
    spread = _RULE * rule * abs(float(by_rule_N @ gain_N) / float(by_rule_N @ by_rule_N)) or 1.0
    noise = float(np.std(gain_N)) or 1.0
    for _ in range(50):  # the weight of the rule depends on the noise, and that on the fit
        prior_22 = np.outer([rule, -1.0], [rule, -1.0]) * (noise / spread) ** 2
        covariance_22 = np.asarray(np.linalg.inv(row_N2.T @ row_N2 + prior_22), dtype=np.float64)
        theta = covariance_22 @ (row_N2.T @ gain_N)
        freedom = max(1.0, len(gain_N) - float(np.trace(row_N2 @ covariance_22 @ row_N2.T)))
        residual = gain_N - row_N2 @ theta
        before, noise = noise, float(np.sqrt(residual @ residual / freedom))
        if abs(noise - before) < 1e-6 * before:
            break
    scale, bent = theta.tolist()
    is_told = scale > noise * float(np.sqrt(covariance_22[0, 0]))
    saturation = min(max(bent / scale, rule / _FURTHEST), rule * _FURTHEST) if is_told else rule
    return FittedResponse(scale, saturation, is_told, covariance_22, noise, freedom)
