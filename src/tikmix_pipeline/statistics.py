"""Correlations of rows, and intervals of 95 %, written once for all rooms.

Fisher's z gives a correlation over n pairs the interval

    Pearson     atanh r ± 1.96 / √(n − 3)                     (Fisher 1921)
    Spearman    atanh ρ ± 1.96 √((1 + ρ²/2) / (n − 3))        (Bonett and Wright 2000)

which is nan for fewer than four pairs, and for a perfect correlation, of which it would have no width. A row that is
constant correlates with nothing: nan. So does one with an undefined value, unless these are to be left out.

SciPy is imported inside functions, and of the package nothing but `errors` may be.

Axes: K things that are correlated over, always the last; N rows, which may be several axes; B resamples, S seeds; I
items of a text, T texts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Kind = Literal["pearson", "spearman"]

_NORMAL = 1.959963984540054
"""The quantile of the normal distribution at the upper end of a 95 % interval."""
_MIDDLE = (2.5, 97.5)
_UPPER = 0.975


def pearson(one_NK: Floats, other_NK: Floats, *, omit_missing: bool = False) -> Floats:
    """Return the linear correlation of each row with its counterpart: (N,), by rounding perhaps just beyond ±1.

    Pairs of which either is nan are left out with `omit_missing`; otherwise, a row that has one is undefined.
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

    Only pairs of which neither is nan are ranked; without `omit_missing` a row that has another one is undefined.
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


def middle_interval(drawn_B: Floats) -> tuple[float, float]:
    """Return between which values the middle 95 % of bootstrapped figures lie; nan ones do not count."""
    defined = drawn_B[~np.isnan(drawn_B)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.percentile(defined, _MIDDLE).tolist()
    return low, high


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a binomial share (Wilson, 1927), which stays inside [0, 1].

    SciPy's takes whole numbers of successes, and the mean share of several tasks need not be one. With no trials
    nothing is known and the interval is [0, 1].
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(_UPPER)
    scale = 1 + z**2 / n
    centre = (share + z**2 / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrapped_spearman(
    one_N: Floats, other_N: Floats, *, seed: int, resamples: int = 1000
) -> tuple[float, float, float]:
    """Return Spearman's correlation and its bootstrap interval; a resample keeps the ranks its rows have among all."""
    return bootstrapped_mean_spearman(one_N[:, None], other_N[:, None], seed=seed, resamples=resamples)


def bootstrapped_mean_spearman(
    one_NT: Floats, other_NT: Floats, *, seed: int, resamples: int = 1000
) -> tuple[float, float, float]:
    """Return the mean over columns of Spearman's correlation, and its bootstrap interval over rows.

    No column may be constant. Columns are resampled together: what they have in common does not average out.
    """
    rows = len(one_NT)
    shares_BN = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples) / rows
    found = [_resampled_spearman(*pair, shares_BN) for pair in zip(one_NT.T, other_NT.T, strict=True)]
    means_B = np.mean([of_resample_B for _, of_resample_B in found], axis=0)
    low, high = middle_interval(means_B[np.isfinite(means_B)])
    return float(np.mean([spearman for spearman, _ in found])), low, high


def _resampled_spearman(one_N: Floats, other_N: Floats, shares_BN: Floats) -> tuple[float, Floats]:
    """Return Spearman's correlation, and that of every resample; nan of one that holds one row only, time and again."""
    from scipy.stats import rankdata

    ranks_2N = np.stack([rankdata(one_N), rankdata(other_N)])
    ranks_2N -= ranks_2N.mean(axis=1, keepdims=True)
    means_2B = ranks_2N @ shares_BN.T
    squares_2B = np.square(ranks_2N) @ shares_BN.T - np.square(means_2B)
    products_B = shares_BN @ ranks_2N.prod(axis=0) - means_2B.prod(axis=0)
    scales_B = np.sqrt(np.maximum(squares_2B, 0).prod(axis=0))
    of_resample_B = np.divide(products_B, scales_B, out=np.full_like(products_B, np.nan), where=scales_B > 0)
    # to the last bit that of scipy.stats.spearmanr, which tables on disk hold
    return float(np.corrcoef(ranks_2N)[0, 1]), of_resample_B


@dataclass(frozen=True)
class PairedDifference:
    """What can be said of the difference of two arms that share their seeds; what seeds are too few for is nan.

    For the differences d of n seeds, with mean m and standard deviation s:

        interval          m ± t((1 + level) / 2; n − 1) s / √n, Student's, of 95 % unless another level is asked for
        p value           of the paired t-test, two-sided: below 1 − level exactly where the interval excludes 0
        win probability   P(d < 0) on a new seed, by the predictive distribution of the same normal model:
                          F(−m / (s √(1 + 1/n)); n − 1). It takes every difference to be as likely as any other
                          beforehand: too sure of itself where most arms are nearly alike
        share won         of the seeds at hand, a tie counting half

    Two or three seeds make t wide (12.7 and 4.3 standard errors), and that differences are normal is an assumption
    which they cannot test. Of the first arm, where less is better, are `win_probability` and `share_won`.
    """

    difference: float = math.nan
    """m; negative where less is better and the first arm is ahead."""
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    win_probability: float = math.nan
    share_won: float = math.nan

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(difference_S: Floats, *, level: float = 0.95) -> PairedDifference:
    """Return what the differences of two arms, seed by seed, say; nothing where one of them is not finite.

    Of several comparisons that answer one question, `level` is 1 − 0.05 / (their number): Bonferroni's correction.
    """
    from scipy.stats import t

    seeds = len(difference_S)
    if not seeds or not np.isfinite(difference_S).all():
        return PairedDifference()
    mean = float(difference_S.mean())
    share_won = float(((difference_S < 0) + 0.5 * (difference_S == 0)).mean())
    if seeds == 1:
        return PairedDifference(difference=mean, share_won=share_won)
    sd = float(difference_S.std(ddof=1))
    error = sd / math.sqrt(seeds)
    half_width = float(t.ppf((1 + level) / 2, seeds - 1)) * error
    return PairedDifference(
        difference=mean,
        sd=sd,
        low=mean - half_width,
        high=mean + half_width,
        p_value=float(2 * t.sf(abs(_ratio(mean, error)), seeds - 1)),
        win_probability=float(t.cdf(-_ratio(mean, sd * math.sqrt(1 + 1 / seeds)), seeds - 1)),
        share_won=share_won,
    )


def _ratio(mean: float, spread: float) -> float:
    """Divide; seeds that all agree leave no doubt, and none at all where they agree on no difference."""
    if spread > 0:
        return mean / spread
    return 0.0 if mean == 0 else math.copysign(math.inf, mean)


@dataclass(frozen=True)
class Interval:
    """A figure, and the ends of its 95 % interval, which are nan where too little is known."""

    value: float
    low: float
    high: float


def mean_of_ratios(amounts: Sequence[Floats], sizes: Sequence[Floats]) -> Interval:
    """Return the mean over texts of what their items have per unit of size, `1/T Σ_t Σ_i a_ti / Σ_i s_ti`.

    The interval is over other items that each text might have had, as that of a bootstrap within texts is, but needs no
    resamples: the variance of the ratio R_t of a text is `I/(I − 1) Σ_i (a_i − R_t s_i)² / (Σ_i s_i)²` (linearised;
    Cochran, Sampling Techniques, 1977, chapter 6). A text of one item leaves it unknown.

    Args:
        amounts: of the items of each text (I,), as the difference of two models on the same item.
        sizes: of the same items (I,), positive, as their bytes.
    """
    ratios, variances = [], []
    for amount_I, size_I in zip(amounts, sizes, strict=True):
        items, whole = len(amount_I), float(size_I.sum())
        ratio = float(amount_I.sum()) / whole
        rest = float(np.square(amount_I - ratio * size_I).sum())
        ratios.append(ratio)
        variances.append(items / (items - 1) * rest / whole**2 if items > 1 else math.nan)
    mean = math.fsum(ratios) / len(ratios)
    half_width = _NORMAL * math.sqrt(math.fsum(variances)) / len(ratios)
    return Interval(mean, mean - half_width, mean + half_width)
