"""Correlations row by row, and the interval that Fisher's z gives one.

    Pearson     atanh r ± 1.96 / √(n − 3)                     (Fisher 1921)
    Spearman    atanh ρ ± 1.96 √((1 + ρ²/2) / (n − 3))        (Bonett and Wright 2000)

A row with an undefined value, or one that is constant, correlates with nothing: nan. So is an interval of fewer than
four pairs, and of a perfect correlation, of which Fisher's would have no width.

Axes: N rows, K things that are correlated over.
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


def pearson(first_NK: Floats, second_NK: Floats) -> Floats:
    """Return the linear correlation of each row with its counterpart."""
    centred = [values - values.mean(axis=1, keepdims=True) for values in (first_NK, second_NK)]
    scale_N = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    # a constant row is told by its values: its mean may be off by rounding
    differ_N = (np.ptp(first_NK, axis=1) > 0) & (np.ptp(second_NK, axis=1) > 0)
    correlation_N = np.full(len(scale_N), np.nan)
    np.divide((centred[0] * centred[1]).sum(axis=1), scale_N, out=correlation_N, where=differ_N & (scale_N > 0))
    bounded_N: Floats = np.clip(correlation_N, -1, 1)
    return bounded_N


def spearman(first_NK: Floats, second_NK: Floats) -> Floats:
    """Return the rank correlation of each row with its counterpart; ties share their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(first_NK, axis=1), rankdata(second_NK, axis=1))


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
