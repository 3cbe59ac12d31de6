"""A smooth least gain over the targets, which may be maximised in the place of a small spread (`optimize.fairness`).

GRAPE (arXiv 2505.20380) plays weights of targets against the weights of domains: the targets that gain least get the
most say. With the relative entropy as what holds the targets' weights back, the inner game has a closed form,

    softmin(P̂) = min_z [ z·P̂ + τ KL(z ‖ ω/U) ] = −τ ln Σ_u (ω_u/U) exp(−P̂_u/τ),        z_u ∝ ω_u exp(−P̂_u/τ),

which lies between the least gain and the weighted mean: for small τ it is the one, for large τ the other. It is concave
and rises with every gain, so it is concave in the mixture where gains are, linear or of second order. Unlike the
spread, it never asks a target to gain less.

Axes: N mixtures, U targets, K domains.
"""

from dataclasses import dataclass

import numpy as np

from tikmix_pipeline.mixture.simplex import FloatArray


def softmin(gain_NU: FloatArray, weight_U: FloatArray, temperature: float) -> FloatArray:
    """Return the soft minimum over the last axis; 0 of nothing. The weights ω are positive and sum to U."""
    if not gain_NU.shape[-1]:
        return np.zeros(gain_NU.shape[:-1])
    least_N1 = gain_NU.min(axis=-1, keepdims=True)
    exponential_NU = weight_U / len(weight_U) * np.exp(-(gain_NU - least_N1) / temperature)
    soft_N: FloatArray = least_N1[..., 0] - temperature * np.log(exponential_NU.sum(axis=-1))
    return soft_N


def softmin_say(gain_U: FloatArray, weight_U: FloatArray, temperature: float) -> FloatArray:
    """Return z, what each target has to say: the gradient of the soft minimum by the gains; it sums to 1."""
    exponential_U = weight_U * np.exp(-(gain_U - gain_U.min()) / temperature)
    say_U: FloatArray = exponential_U / exponential_U.sum()
    return say_U


@dataclass(frozen=True, eq=False)
class SoftLeast:
    """The soft minimum of gains `Ŝ_u w − ½ (wᵀA_u w − w_refᵀA_u w_ref)` as a function of the mixture."""

    temperature: float
    rows_UK: FloatArray
    """Ŝ."""
    weight_U: FloatArray
    curved_UKK: FloatArray | None = None
    """A; None where gains are linear."""
    reference_K: FloatArray | None = None
    """w_ref; there where A is."""

    def gains(self, weights_K: FloatArray) -> FloatArray:
        """Return the gains (U,) of a mixture."""
        gain_U: FloatArray = self.rows_UK @ weights_K
        if self.curved_UKK is None or self.reference_K is None:
            return gain_U
        both_2K = np.stack([weights_K, self.reference_K])
        bent_U, reference_U = np.einsum("nk,ukj,nj->nu", both_2K, self.curved_UKK, both_2K) / 2
        curved_U: FloatArray = gain_U - bent_U + reference_U
        return curved_U

    def value(self, weights_K: FloatArray) -> float:
        """Return the soft minimum."""
        return float(softmin(self.gains(weights_K), self.weight_U, self.temperature))

    def slope(self, weights_K: FloatArray) -> FloatArray:
        """Return its gradient by the mixture, (K,): by concavity it is `value(v) ≤ value(w) + slope(w)·(v − w)`."""
        if not len(self.rows_UK):
            return np.zeros_like(weights_K)
        say_U = softmin_say(self.gains(weights_K), self.weight_U, self.temperature)
        slope_K: FloatArray = say_U @ self.rows_UK
        if self.curved_UKK is None:
            return slope_K
        return slope_K - np.tensordot(say_U, self.curved_UKK, 1) @ weights_K
