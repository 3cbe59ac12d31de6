"""The simplex: mixtures checked, named, rounded and measured; and the prior, mixture 0.

Axes: K domains.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError, nearest_name, quoted

FloatArray = npt.NDArray[np.float64]

SUM_TOLERANCE = 1e-6
"""How far from 1 the weights of a mixture may sum."""

ROUNDING = 1e-9
"""How far a mixture may miss a bound: 26 × (1/26) need not be 1 in floats."""

_SMALLEST = np.finfo(np.float64).tiny


def check_mixture(weights: Mapping[str, float], domains: Sequence[str], source: str) -> FloatArray:
    """Return the weights in the order of `domains`, scaled to sum to 1 as nearly as floats can.

    Args:
        weights: one weight per domain.
        domains: the names there must be a weight for, and no other.
        source: the parameter or file the weights come from, for messages.

    Raises:
        TikmixError: a name is unknown or missing, a weight is negative or not finite, or the sum is off 1 by more than
            `SUM_TOLERANCE`.
    """
    for name in weights:
        if name not in domains:
            raise TikmixError(f"{source} names the domain '{name}', which is not there.{nearest_name(name, domains)}")
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
    prior: Literal["proportional", "uniform"] | Mapping[str, float],
    tokens: Mapping[str, float],
    source: str = "tikmix.prior",
) -> dict[str, float]:
    """Return the weight of each domain in mixture 0, under which the first chunk trains before anything is measured.

    `proportional` is `w_j = N_j / Σ_k N_k`, the natural mixture; `uniform` is `w_j = 1/K`.

    Args:
        prior: a rule, or the weights themselves.
        tokens: training tokens N_j of each domain; its keys are the domains.
        source: the parameter `prior` comes from, for messages.

    Raises:
        TikmixError: the given weights are no mixture of these domains, or there is not a single token.
    """
    if prior == "uniform":
        return dict.fromkeys(tokens, 1 / len(tokens))
    if prior == "proportional":
        total = sum(tokens.values())
        if total == 0:
            raise TikmixError(f"{source} is proportional to the domains' tokens, but no domain has any.")
        return {domain: count / total for domain, count in tokens.items()}
    return by_name(list(tokens), check_mixture(prior, list(tokens), source))


def round_to_simplex(weights_K: FloatArray, decimals: int) -> FloatArray:
    """Round a mixture to `decimals` by largest remainder.

    Each weight is rounded down to a whole number of units of 10^-decimals; the units left over go one each to the
    largest remainders, the earlier domain first among equals. So no weight moves by a whole unit, a zero stays zero,
    and the decimals sum to exactly 1. (Binary floats only approximate decimals: `math.fsum` of the result is 1 to
    within its last bit, the sum of `Decimal(str(weight))` is 1.)

    Args:
        weights_K: non-negative, not all zero; scaled to sum to 1 exactly.
        decimals: digits after the point.
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
