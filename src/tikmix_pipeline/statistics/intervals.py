"""Intervals of 95 %: of bootstrapped figures, of shares, of rank correlations, and of differences in pairs.

Axes: N rows, B resamples, S seeds.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_MIDDLE = (2.5, 97.5)
_UPPER = 0.975


def middle_interval(drawn_B: Floats) -> tuple[float, float]:
    """Return between which values the middle 95 % of bootstrapped figures lie; nan ones do not count."""
    defined = drawn_B[~np.isnan(drawn_B)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.percentile(defined, _MIDDLE).tolist()
    return low, high


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a binomial share (Wilson, 1927), which stays inside [0, 1].

    SciPy's takes whole numbers of successes, and the mean share of several tasks need not be one.

    Args:
        share: observed share of successes.
        n: trials; with none, nothing is known and the interval is [0, 1].
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
    from scipy.stats import rankdata

    ranks_2N = np.stack([rankdata(one_N), rankdata(other_N)])
    ranks_2N -= ranks_2N.mean(axis=1, keepdims=True)
    rows = len(one_N)
    shares_BN = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples) / rows
    means_2B = ranks_2N @ shares_BN.T
    squares_2B = np.square(ranks_2N) @ shares_BN.T - np.square(means_2B)
    products_B = shares_BN @ ranks_2N.prod(axis=0) - means_2B.prod(axis=0)
    scales_B = np.sqrt(np.maximum(squares_2B, 0).prod(axis=0))
    # a small resample may hold one row only, time and again
    low, high = middle_interval(products_B[scales_B > 0] / scales_B[scales_B > 0])
    # to the last bit that of scipy.stats.spearmanr, which tables on disk hold
    return float(np.corrcoef(ranks_2N)[0, 1]), low, high


@dataclass(frozen=True)
class PairedDifference:
    """What can be said of the difference of two arms that share their seeds; what seeds are too few for is nan.

    For the differences d of n seeds, with mean m and standard deviation s:

        interval          m ± t(0.975; n − 1) s / √n, Student's 95 %
        p value           of the paired t-test, two-sided: below 0.05 exactly where the interval excludes 0
        win probability   P(d < 0) on a new seed, by the predictive distribution of the same normal model:
                          F(−m / (s √(1 + 1/n)); n − 1). It takes every difference to be as likely as any other
                          beforehand: too sure of itself where most arms are nearly alike
        share won         of the seeds at hand, a tie counting half

    Two or three seeds make t wide (12.7 and 4.3 standard errors), and that differences are normal is an assumption
    which they cannot test.

    Attributes:
        difference: m; negative where less is better and the first arm is ahead.
        sd: s.
        low: lower end of the interval.
        high: upper end of the interval.
        p_value: the p value.
        win_probability: how likely the first arm wins on a new seed, where less is better.
        share_won: the share of seeds that the first arm wins.
    """

    difference: float = math.nan
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


def paired_difference(difference_S: Floats) -> PairedDifference:
    """Return what the differences of two arms, seed by seed, say; nothing where one of them is not finite."""
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
    half_width = float(t.ppf(_UPPER, seeds - 1)) * error
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
