"""Weights as text: zeros dropped, decimals that sum to exactly 1, no exponents.

    share          Decimal, a whole number of units of 10^-9, above 0
    shares         by domain, in the order of names, summing to exactly 1

Frameworks differ over zeros (some fail an assertion, some hang) and over sums, and none objects to these.
"""

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from tikmix_pipeline.mixture.simplex import round_to_simplex

DECIMALS = 9
"""A weight moves by less than 10^-9 when it is written."""

Shares = Mapping[str, Decimal]


def shares_of(weights: Mapping[str, float], decimals: int = DECIMALS) -> dict[str, Decimal]:
    """Return the weights as decimals that sum to exactly 1, by name; what rounds to zero is left out.

    Args:
        weights: not negative, not all zero; any sum.
        decimals: digits after the point.
    """
    names = sorted(weights)
    rounded_K = round_to_simplex(np.array([weights[name] for name in names], dtype=np.float64), decimals)
    shares = {name: plain_decimal(weight, decimals) for name, weight in zip(names, rounded_K.tolist(), strict=True)}
    return {name: share for name, share in shares.items() if share}


def plain_decimal(value: float, decimals: int = DECIMALS) -> Decimal:
    """Return a float rounded to so many digits after the point, without an exponent or trailing zeros."""
    digits = f"{value:.{decimals}f}".rstrip("0")
    return Decimal(digits + "0" if digits.endswith(".") else digits)


def text_of(share: Decimal) -> str:
    """Return a share as plain text, `1.0` for a whole number, so that every reader takes it for a float."""
    text = f"{share:f}"
    return text if "." in text else f"{text}.0"


def floats(shares: Shares) -> dict[str, float]:
    """Return shares as floats."""
    return {name: float(share) for name, share in shares.items()}
