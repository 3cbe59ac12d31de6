"""The log-linear law of Olmix and of Data Mixing Laws (Ye et al. 2024, arXiv 2403.16952): `c + exp(b + a·w)`.

A loss that cannot be had lower than c, and above it a product of what each domain does. On the simplex b is a part of
a, for weights sum to 1; so the law has K + 1 parameters, and is convex in w.

Olmix (allenai/olmix) fits it by the Huber loss, from 300 random starts with L-BFGS, δ being 0.02 in its unit of loss,
and holds c above 0. Here responses come in any unit, so δ is a share of their standard deviation, and c lies no
further than ten times their range below the least (or at 0, whichever is lower). Given c the law is linear in its
logarithm, which is where each of a few starts comes from: the same rows give the same bits. There is no penalty: with
hardly more rows than domains the law follows the noise.

Axes: N rows, M other rows, K domains.
"""

import numpy as np
from scipy.optimize import least_squares
from sklearn.base import BaseEstimator, RegressorMixin

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import varies

_DELTA = 0.2
"""Residuals above so many standard deviations of the response count by their size, and no longer by its square."""
_DEEPEST = 10.0
"""c lies at most so many ranges of the response below its least value."""
_STARTS = 6
_SHALLOWEST = 0.05
"""The first start has c so many ranges below the least value."""
_EVALUATIONS = 200
_LARGEST = 50.0
"""Exponents are cut here, far above any response of range 1."""


class LogLinear(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The law `c + exp(a·w)` of one response, by robust least squares."""

    def fit(self, X: FloatArray, y: FloatArray) -> "LogLinear":
        """Fit mixtures (N, K) and responses (N,)."""
        weights_NK, response_N = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
        self.n_features_in_ = weights_NK.shape[1]
        self.least_, self.range_ = float(response_N.min()), float(np.ptp(response_N))
        self.parameters_ = np.zeros(1 + self.n_features_in_)
        if varies(response_N[:, None])[0]:
            # in units of the range, above the least value
            z_N = (response_N - self.least_) / self.range_
            deepest = max(_DEEPEST, self.least_ / self.range_)
            self.parameters_ = _fitted(weights_NK, z_N, deepest)
        else:
            self.least_, self.range_ = float(response_N.mean()), 0.0
        return self

    def predict(self, X: FloatArray) -> FloatArray:
        """Return the predicted response (M,) of mixtures (M, K)."""
        response_M: FloatArray = self.least_ + self.range_ * _law(self.parameters_, np.asarray(X, dtype=np.float64))
        return response_M


def _law(parameters: FloatArray, weights_NK: FloatArray) -> FloatArray:
    """Return `c + exp(a·w)` of parameters c, a_1, ..., a_K."""
    values_N: FloatArray = parameters[0] + np.exp(np.minimum(weights_NK @ parameters[1:], _LARGEST))
    return values_N


def _fitted(weights_NK: FloatArray, z_N: FloatArray, deepest: float) -> FloatArray:
    """Return the parameters of the least Huber loss from all starts; the response has its least value at 0."""
    lower = np.concatenate([[-deepest], np.full(weights_NK.shape[1], -np.inf)])
    upper = np.concatenate([[1.0], np.full(weights_NK.shape[1], np.inf)])

    def residuals(parameters: FloatArray) -> FloatArray:
        return _law(parameters, weights_NK) - z_N

    def slopes(parameters: FloatArray) -> FloatArray:
        above_N = _law(parameters, weights_NK) - parameters[0]
        return np.concatenate([np.ones((len(z_N), 1)), above_N[:, None] * weights_NK], axis=1)

    best, least = np.zeros(0), np.inf
    for floor in -np.geomspace(_SHALLOWEST, 0.9 * deepest, _STARTS):
        found = least_squares(
            residuals,
            np.concatenate([[floor], _linear_in_logarithm(weights_NK, z_N - floor)]),
            jac=slopes,
            bounds=(lower, upper),
            loss="huber",
            f_scale=_DELTA * float(z_N.std()),
            max_nfev=_EVALUATIONS,
        )
        if found.cost < least:
            best, least = found.x, float(found.cost)
    return best


def _linear_in_logarithm(weights_NK: FloatArray, above_N: FloatArray) -> FloatArray:
    """Return the least-squares a of `log(response − c) = a·w`."""
    return np.asarray(np.linalg.lstsq(weights_NK, np.log(above_N), rcond=None)[0], dtype=np.float64)
