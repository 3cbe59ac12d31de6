"""Pearson's and Spearman's correlation of rows, and the interval that Fisher's z gives one.

    Pearson     atanh r ± 1.96 / √(n − 3)                     (Fisher 1921)
    Spearman    atanh ρ ± 1.96 √((1 + ρ²/2) / (n − 3))        (Bonett and Wright 2000)

A row that is constant correlates with nothing: nan. So does one with an undefined value, unless these are to be left
out. An interval is nan for fewer than four pairs, and for a perfect correlation, of which Fisher's would have no width.

Axes: K things that are correlated over, always the last; N rows, which may be several axes.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Kind = Literal["pearson", "spearman"]

_NORMAL = 1.959963984540054
"""The quantile of the normal distribution at the upper end of a 95 % interval."""


def pearson(one_NK: Floats, other_NK: Floats, *, omit_missing: bool = False) -> Floats:
    """Return the linear correlation of each row with its counterpart: (N,), by rounding perhaps just beyond ±1.

    Args:
        one_NK: rows of one side.
        other_NK: rows of the other side.
        omit_missing: leave out pairs of which either is nan; otherwise, a row that has one is undefined.
    """
    missing_NK = np.isnan(one_NK) | np.isnan(other_NK)
    pair = [np.where(missing_NK, np.nan, values_NK) for values_NK in (one_NK, other_NK)]
    # a constant row is told by its values: its mean may be off by rounding
    defined_N = _differ(pair[0], missing_NK) & _differ(pair[1], missing_NK)
    if not omit_missing:
        defined_N &= ~missing_NK.any(axis=-1)
    centred = [np.nan_to_num(values_NK - mean_of_defined(values_NK, axis=-1)[..., None]) for values_NK in pair]
    scale_N = np.sqrt((centred[0] ** 2).sum(axis=-1) * (centred[1] ** 2).sum(axis=-1))
    correlation_N = np.full(scale_N.shape, np.nan)
    np.divide((centred[0] * centred[1]).sum(axis=-1), scale_N, out=correlation_N, where=defined_N & (scale_N > 0))
    return correlation_N


def spearman(one_NK: Floats, other_NK: Floats, *, omit_missing: bool = False) -> Floats:
    """Return the rank correlation of each row with its counterpart: (N,); ties share their mean rank.

    Args:
        one_NK: rows of one side.
        other_NK: rows of the other side.
        omit_missing: rank and correlate only pairs of which neither is nan; otherwise, a row that has one is undefined.
    """
    from scipy.stats import rankdata

    missing_NK = np.isnan(one_NK) | np.isnan(other_NK)
    pair = (np.where(missing_NK, np.nan, values_NK) for values_NK in (one_NK, other_NK))
    ranks = [rankdata(values_NK, axis=-1, nan_policy="omit") for values_NK in pair]
    return pearson(*ranks, omit_missing=omit_missing)


CORRELATIONS: dict[Kind, Callable[[Floats, Floats], Floats]] = {"pearson": pearson, "spearman": spearman}


def fisher_interval(correlation: float, pairs: int, kind: Kind) -> tuple[float, float]:
    """Return the 95 % interval of a correlation over so many independent pairs."""
    if math.isnan(correlation) or pairs < 4 or abs(correlation) > 1 - 1e-12:
        return math.nan, math.nan
    variance = (1.0 if kind == "pearson" else 1 + correlation**2 / 2) / (pairs - 3)
    z, half_width = math.atanh(correlation), _NORMAL * math.sqrt(variance)
    return math.tanh(z - half_width), math.tanh(z + half_width)


def mean_of_defined(values: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Average over what is not nan; nan where nothing is left."""
    defined = ~np.isnan(values)
    count = np.asarray(defined.sum(axis=axis))
    mean = np.full(count.shape, np.nan)
    np.divide(np.where(defined, values, 0).sum(axis=axis), count, out=mean, where=count > 0)
    return mean


def _differ(values_NK: Floats, missing_NK: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    largest_N = np.where(missing_NK, -np.inf, values_NK).max(axis=-1)
    smallest_N = np.where(missing_NK, np.inf, values_NK).min(axis=-1)
    differ_N: npt.NDArray[np.bool_] = largest_N > smallest_N
    return differ_N
