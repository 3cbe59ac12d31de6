"""The objective of TiKMiX-D, its gradient, and a bound on how much better any mixture could be.

`F(w) = α·std(P̂) − β·Σ_t P̂_t − γ·(H(w) + w·ln q)` with `P̂ = Ŝ w`, where targets may have weights (`mixture.targets`).
The last term is `γ·KL(w ‖ q)`, the distance from an anchor q; for the uniform one it is the paper's entropy, and the
constant `w·ln q` is left out. F is convex: the standard deviation of an affine function is, the gain is linear, and the
entropy is concave. So there is one best value, and the multipliers of a solution prove how near it comes
(`lower_bound`).

Axes: T targets (tasks, or groups of them), K domains, C constraints.
"""

from dataclasses import dataclass

import numpy as np

from tikmix_pipeline.mixture.projection import Halfspaces
from tikmix_pipeline.mixture.simplex import FloatArray, entropy
from tikmix_pipeline.mixture.targets import Targets, deviations, spread, total
from tikmix_pipeline.parameters.decision import ObjectiveParameters

KINK = 1e-6
"""std has no gradient where all tasks gain alike; the solver sees `√(std² + KINK²)`, which is never off by more."""

_EMPTY = 1e-12
"""The entropy's gradient is infinite at a weight of 0; below this weight it is taken to stay what it is here."""


@dataclass(frozen=True, eq=False)
class Objective:
    """F for one influence matrix.

    Attributes:
        normalised_TK: Ŝ, the influence of each domain on each target, divided by the normaliser of its tasks.
        uniformity: α.
        gain: β.
        entropy: γ.
        anchor_K: q, positive; None for the uniform mixture.
        weight_T: ω, what each target counts; they sum to T. None for ones.
    """

    normalised_TK: FloatArray
    uniformity: float
    gain: float
    entropy: float
    anchor_K: FloatArray | None = None
    weight_T: FloatArray | None = None

    @classmethod
    def of(
        cls, normalised_TK: FloatArray, targets: Targets, parameters: ObjectiveParameters, anchor_K: FloatArray | None
    ) -> "Objective":
        """Return the objective over targets, from the normalised influence on tasks."""
        return cls(
            normalised_TK=targets.rows(normalised_TK),
            uniformity=parameters.uniformity,
            gain=parameters.gain_of(len(targets.weight_U)),
            entropy=parameters.entropy,
            anchor_K=anchor_K,
            weight_T=targets.weight_U,
        )

    def _weights(self) -> FloatArray:
        return np.ones(len(self.normalised_TK)) if self.weight_T is None else self.weight_T

    def terms(self, weights_K: FloatArray) -> dict[str, float]:
        """Return `std(P̂)` over targets, `ΣP̂` and `H(w) + w·ln q`, each without its weight."""
        gains_T = self.normalised_TK @ weights_K
        return {
            "std": float(spread(gains_T, self._weights())),
            "gain": float(total(gains_T, self._weights())),
            "entropy": entropy(weights_K) + self._pull(weights_K),
        }

    def _pull(self, weights_K: FloatArray) -> float:
        """Return `w·ln q`, what is linear in the distance from the anchor."""
        return 0.0 if self.anchor_K is None else float(weights_K @ np.log(self.anchor_K))

    def value(self, weights_K: FloatArray, kink: float = 0.0) -> float:
        """Return `F(w) = α·std(P̂) − β·ΣP̂ − γ·H(w)`, with `√(std² + kink²)` for std."""
        terms = self.terms(weights_K)
        std = float(np.hypot(terms["std"], kink))
        return self.uniformity * std - self.gain * terms["gain"] - self.entropy * terms["entropy"]

    def gradient(self, weights_K: FloatArray) -> FloatArray:
        """Return `∇F = c(w) + γ (ln w + 1)` with the kink of std rounded off."""
        return self._slope(weights_K) + self.entropy * (np.log(np.maximum(weights_K, _EMPTY)) + 1)

    def sum_multiplier(self, weights_K: FloatArray) -> float:
        """Return `w·∇F`, the multiplier of `Σ_j w_j = 1` of a mixture that nothing else holds."""
        return float(weights_K @ self.gradient(weights_K))

    def _slope(self, weights_K: FloatArray) -> FloatArray:
        """Return `c(w)`, the gradient but for the entropy's.

        It is `α Ŝᵀ(ω (P̂ − mean P̂)) / (T √(std² + KINK²)) − β Ŝᵀω − γ ln q`. As std is convex and homogeneous,
        `α·std(Ŝ v) − β·Σ(Ŝ v) − γ v·ln q ≥ c(w)·v` for every mixture v.
        """
        anchored_K = np.zeros_like(weights_K) if self.anchor_K is None else self.entropy * np.log(self.anchor_K)
        gains_T = self.normalised_TK @ weights_K
        if not gains_T.size:
            return -anchored_K
        weight_T = self._weights()
        scale = len(gains_T) * np.hypot(spread(gains_T, weight_T), KINK)
        pull_T = self.uniformity * deviations(gains_T, weight_T) / scale
        slope_K: FloatArray = self.normalised_TK.T @ (weight_T * (pull_T - self.gain))
        return slope_K - anchored_K

    def lower_bound(
        self,
        weights_K: FloatArray,
        sum_multiplier: float,
        multipliers_C: FloatArray,
        *,
        constraints: Halfspaces,
        box: tuple[FloatArray, FloatArray],
    ) -> float:
        """Return a value that F does not go below on any mixture v inside the box with `rows v ≥ least`.

        By Lagrangian duality, whatever the constraints are about (least gains of tasks, limits on groups): for any μ
        and any λ ≥ 0 a mixture within them has `μ (Σ_j v_j − 1) = 0` and `λ·(rows v − least) ≥ 0`. Both taken off
        `F(v) ≥ c(w)·v + γ Σ_j v_j ln v_j`, for any w, with `r = c(w) − rowsᵀλ − μ`,
        `F(v) ≥ μ + λ·least + Σ_j min_{low ≤ v_j ≤ high} (r_j v_j + γ v_j ln v_j)`.
        Each minimum is at `v_j = exp(−r_j/γ − 1)`, clipped to the box, or in a corner if γ = 0. At the best mixture and
        its multipliers the two sides are equal.

        Args:
            weights_K: w, where std is linearised.
            sum_multiplier: μ, the multiplier of `Σ_j v_j = 1`.
            multipliers_C: λ, the multipliers of the constraints.
            constraints: rows and least.
            box: the smallest and the largest weights.
        """
        low_K, high_K = box
        residual_K = self._slope(weights_K) - constraints.rows_GK.T @ multipliers_C - sum_multiplier
        if self.entropy:
            exponent_K = np.minimum(-residual_K / self.entropy - 1, 0)  # no weight is above 1, and exp may not overflow
            least_K = np.clip(np.exp(exponent_K), low_K, high_K)
        else:
            least_K = np.where(residual_K > 0, low_K, high_K)
        inner = float(residual_K @ least_K) - self.entropy * entropy(least_K)
        return sum_multiplier + float(multipliers_C @ constraints.least_G) + inner
