"""What held-out text gains: as tasks do, or with the domain's own share of a chunk by its logarithm.

    second_order   D_k·w − r/2 wᵀQw
    logarithm      Σ_{j≠k} D_kj w_j + D_kk p_k ln(w_k + ε p_k),  ε = 0.05

over the prior p, in the units of S (`optimize.heldout_response`). Both are concave, and begin with much the same slope
at the prior. Text that is neglected loses by the second what real branches and runs show it to lose, and by the first
far less (docs/results.md). A domain that does its own text no good, or is not in the prior, has no logarithm.

Axes: N mixtures, C texts or means of texts, M domains of one of them, K domains.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.second_order import bend
from tikmix_pipeline.mixture.simplex import FloatArray

HeldoutResponse = Literal["second_order", "logarithm"]

FLOOR = 0.05
"""ε: the share of the prior's that counts as still there of a domain that is left out. From one surface of branches."""


@dataclass(frozen=True, eq=False)
class Logarithms:
    """`Σ_k b_ck ln(w_k + δ_k)`, concave in w."""

    coefficients_CK: FloatArray
    """b; not negative."""
    floor_K: FloatArray
    """δ; positive wherever b is."""

    def at(self, weights_NK: FloatArray) -> FloatArray:
        """Return the sums, (N, C)."""
        sum_NC: FloatArray = np.log(self._arguments(weights_NK)) @ self.coefficients_CK.T
        return sum_NC

    def slopes(self, weights_K: FloatArray) -> FloatArray:
        """Return how fast they grow with each weight, (C, K)."""
        slope_CK: FloatArray = self.coefficients_CK / self._arguments(weights_K)
        return slope_CK

    def scaled(self, scale_C: FloatArray) -> "Logarithms":
        """Return each sum divided by a scale."""
        return Logarithms(self.coefficients_CK / scale_C[:, None], self.floor_K)

    def take(self, is_taken_C: npt.NDArray[np.bool_]) -> "Logarithms":
        """Return some of the sums."""
        return Logarithms(self.coefficients_CK[is_taken_C], self.floor_K)

    def _arguments(self, weights_K: FloatArray) -> FloatArray:
        is_used_K = self.coefficients_CK.max(axis=0, initial=0) > 0
        return np.where(is_used_K, np.maximum(weights_K, 0) + self.floor_K, 1.0)


@dataclass(frozen=True, eq=False)
class TextGain:
    """`a·w + b·ln(w + δ) − κ r/2 wᵀQw`, what one text, or the mean of several, gains, in the units of S."""

    row_K: FloatArray
    """a."""
    log_K: FloatArray
    """b; zeros where there is no logarithm."""
    floor_K: FloatArray
    """δ."""
    bends: bool
    """κ, whether what domains have in common counts once."""

    @classmethod
    def second_order(cls, row_K: FloatArray) -> "TextGain":
        """Return the gain to second order."""
        zeros_K = np.zeros_like(row_K)
        return cls(row_K, zeros_K, zeros_K, bends=True)

    @classmethod
    def logarithm(cls, row_K: FloatArray, log_K: FloatArray, prior_K: FloatArray) -> "TextGain":
        """Return the gain with own shares by their logarithms; `row_K` is that of all domains, as measured."""
        own_K = np.divide(log_K, prior_K, out=np.zeros_like(log_K), where=prior_K > 0)
        return cls(row_K - own_K, log_K, FLOOR * prior_K, bends=False)

    def over(self, weights_K: FloatArray, from_K: FloatArray, saturation: float, curved_KK: FloatArray) -> float:
        """Return the gain of a mixture over another."""
        linear = float(self.row_K @ (weights_K - from_K))
        if self.bends:
            return linear - saturation * float(bend(weights_K[None], from_K, curved_KK)[0])
        sum_N = Logarithms(self.log_K[None], self.floor_K).at(np.stack([weights_K, from_K]))[:, 0]
        return linear + float(sum_N[0] - sum_N[1])


def own_logarithms(heldout_KK: FloatArray, prior_K: FloatArray) -> FloatArray:
    """Return b of every domain's text, (K, K): a diagonal."""
    return np.diag(np.maximum(np.diag(heldout_KK), 0.0) * prior_K)
