"""Weights as text: zeros dropped, decimals that sum to exactly 1, no exponents.

    share          Decimal, a whole number of units of 10^-9, above 0
    shares         by domain, in the order of names, summing to exactly 1

Frameworks differ over zeros (some fail an assertion, some hang) and over sums, and none objects to these.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.schedule import Schedule, Stage
from tikmix_pipeline.mixture.simplex import round_to_simplex

DECIMALS = 9
"""A weight moves by less than 10^-9 when it is written."""
DOCUMENT_DECIMALS = 12
"""More for documents: a share of few but long ones is small, and stands for many tokens."""

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


def document_shares(schedule: Schedule, stage: Stage, trainer: str) -> dict[str, Decimal]:
    """Return shares of documents that give the stage's shares of tokens: `w_document ∝ w_token / mean tokens`.

    Raises:
        TikmixError: a domain with weight has no mean number of tokens per document.
    """
    shares = shares_of(stage.weights)
    means = _document_lengths(schedule, shares, trainer)
    return shares_of({name: float(share) / means[name] for name, share in shares.items()}, DOCUMENT_DECIMALS)


def token_shares(schedule: Schedule, documents: Shares, trainer: str) -> dict[str, float]:
    """Return the shares of tokens that shares of documents amount to, the inverse of `document_shares`.

    Raises:
        TikmixError: a domain has no mean number of tokens per document.
    """
    means = _document_lengths(schedule, documents, trainer)
    tokens = {name: float(share) * means[name] for name, share in documents.items()}
    whole = sum(tokens.values())
    return {name: count / whole for name, count in tokens.items()}


def _document_lengths(schedule: Schedule, names: Iterable[str], trainer: str) -> dict[str, float]:
    """Return the mean tokens of a document of each domain."""
    means = {}
    for name in names:
        mean = schedule.domain(name).mean_tokens_per_document
        if mean is None:
            raise TikmixError(
                f"{trainer} draws documents, so weights per token have to be divided by the mean tokens of a document, "
                f"and mean_tokens_per_document of the domain '{name}' is not known. Give it, or export to a trainer "
                "whose weights count tokens."
            )
        means[name] = mean
    return means


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
