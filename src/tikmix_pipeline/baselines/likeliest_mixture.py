"""The weights of K models under which what was observed is most likely.

With q_k(i) the probability that model k gives to observation i, expectation-maximisation climbs

    L(w) = Σ_i ω_i · log Σ_k w_k q_k(i),        w_k ← Σ_i ω_i · w_k q_k(i) / Σ_j w_j q_j(i)

L is concave, so the end is the best there is: no mixture is likelier by more than `max_k Σ_i ω_i q_k(i) / Σ_j w_j
q_j(i) − 1`, which is what iterations stop by.

Axes: K models, N observations.
"""

from dataclasses import dataclass

import numpy as np

from tikmix_pipeline.mixture.simplex import FloatArray


@dataclass(frozen=True, eq=False)
class LikeliestMixture:
    """What expectation-maximisation found."""

    weights_K: FloatArray
    likelihoods: list[float]
    """L before each iteration and after the last."""
    gap: float
    """At most so much is missing from the highest L there is."""
    alone_K: FloatArray
    """L of each model alone."""

    def notes(self, group: str, *, iterations: int, tolerance: float) -> tuple[str, ...]:
        """Say so if it was stopped early; `group` names the parameters that it was given."""
        if self.gap <= tolerance:
            return ()
        return (
            f"Expectation-maximisation was stopped after {group}.iterations = {iterations}, up to {self.gap:.1g} nats "
            "per token from the best mixture.",
        )


def likeliest_mixture(
    probability_KN: FloatArray, weight_N: FloatArray, *, iterations: int, tolerance: float
) -> LikeliestMixture:
    """Return the weights under which the observations are most likely, from equal weights on.

    All probabilities are positive, and ω sums to 1. It ends once no mixture is likelier by more than `tolerance`, or
    after so many iterations.
    """
    weights_K = np.full(len(probability_KN), 1 / len(probability_KN))
    mixed_N = weights_K @ probability_KN
    likelihoods = [float(weight_N @ np.log(mixed_N))]
    for _ in range(iterations):
        gain_K = probability_KN @ (weight_N / mixed_N)
        if gain_K.max() - 1 <= tolerance:
            break
        weights_K = weights_K * gain_K
        weights_K /= weights_K.sum()
        mixed_N = weights_K @ probability_KN
        likelihoods.append(float(weight_N @ np.log(mixed_N)))
    gap = float((probability_KN @ (weight_N / mixed_N)).max()) - 1
    return LikeliestMixture(weights_K, likelihoods, gap, np.log(probability_KN) @ weight_N)
