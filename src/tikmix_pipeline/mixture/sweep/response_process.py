"""A Gaussian process whose mean is the response model: influence says what a mixture does, branches what it does not.

    y(w) = μ − s [S_t·(w − w_ref) − r z(w)] + d r z(w) + f(w) + noise,         z = ½ (wᵀQw − w_refᵀQ w_ref)

y is the loss of one target under a mixture, and the bracket what `mixture.second_order` tells of it without a branch.
s, nats per unit of S, is positive; d corrects r, about zero; f is a process over √w (Matérn 5/2) for whatever else
there is; μ has a flat prior (Rasmussen and Williams 2006, section 2.7). In the units of s u, u being the spread that
the mean has over the rows, the deviations of d r z, f and the noise have log-normal priors: with few rows the model is
that of second order, with many whatever the rows say. s and the deviations are those of the highest posterior, by
L-BFGS.

The deviation of a prediction is corrected by what the rows say when each is left out in turn: by the root mean square
of those residuals in their own standard deviations, with as many rows of 1 beside them as `_TRUST`.

Axes: N rows, M other mixtures, T targets, K domains, H = 5 hyper-parameters, logarithms.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, RegressorMixin

from tikmix_pipeline.mixture.second_order import bend
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.gaussian_process import matern
from tikmix_pipeline.mixture.sweep.responses import varies

_RESIDUAL, _LENGTH, _NOISE, _CORRECTION = 0.3, 1.5, 0.1, 0.3
"""Means of the priors: deviations in units of s u, and the length in those of the median distance between rows."""
_WIDTHS = np.array([1.0, 1.0, 0.7, 1.0, 0.7])
"""Standard deviations of the logarithms of s, f, the length, the noise and d."""
_REACH = 3.0
"""No hyper-parameter goes further from the mean of its prior than this many standard deviations."""
_LEAST_SLOPE = 0.01
"""The least that s starts from, as a share of the response's spread over that of the mean: influence may be wrong, but
it does not count backwards."""
_JITTER = 1e-10
_TRUST = 4.0
_IMPOSSIBLE = 1e10


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of the responses of M mixtures."""

    mean_MT: FloatArray
    deviation_MT: FloatArray
    """Standard deviations, without the noise of a branch."""
    noise_T: FloatArray
    """Standard deviation of a branch around the response."""


class ResponseProcesses(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A process for each of several targets, whose means are told by influence.

    Args:
        influence_TK: S, positive where more of the domain lowers the target's loss.
        curved_KK: Q, in the same unit.
        reference_K: the mixture that gains are over; which one it is matters to no prediction.
        saturation: r.
    """

    def __init__(
        self, influence_TK: FloatArray, curved_KK: FloatArray, reference_K: FloatArray, saturation: float
    ) -> None:
        self.influence_TK = influence_TK
        self.curved_KK = curved_KK
        self.reference_K = reference_K
        self.saturation = saturation

    def fit(self, X: FloatArray, y: FloatArray) -> "ResponseProcesses":
        """Fit mixtures (N, K) and losses (N, T)."""
        weights_NK, response_NT = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
        self.n_features_in_ = weights_NK.shape[1]
        self.processes_ = [
            ResponseProcess(row_K, self.curved_KK, self.reference_K, self.saturation).fit(weights_NK, response_N)
            for row_K, response_N in zip(self.influence_TK, response_NT.T, strict=True)
        ]
        return self

    def predict(self, X: FloatArray) -> FloatArray:
        """Return the predicted losses (M, T) of mixtures (M, K)."""
        return self.posterior(X).mean_MT

    def posterior(self, X: FloatArray) -> Posterior:
        """Return what is known of the losses of mixtures (M, K)."""
        found = [process.posterior(X) for process in self.processes_]
        mean_MT, deviation_MT = (np.stack([one[side] for one in found], axis=1) for side in (0, 1))
        return Posterior(mean_MT, deviation_MT, np.array([process.noise for process in self.processes_]))

    def gain(self, weights_K: FloatArray, over_K: FloatArray, share_T: FloatArray) -> tuple[float, float]:
        """Return how much lower the mean loss is under one mixture than under another, and the standard deviation.

        What is not known of one target is taken to be as little known of the others.
        """
        found = np.array([process.gain(weights_K, over_K) for process in self.processes_])
        mean, deviation = (share_T @ found).tolist()
        return mean, deviation

    def told(self, X: FloatArray) -> "ResponseProcesses":
        """Return the same processes had mixtures been measured as they are predicted: sure of these, no wiser else."""
        weights_MK = np.asarray(X, dtype=np.float64)
        other = ResponseProcesses(self.influence_TK, self.curved_KK, self.reference_K, self.saturation)
        other.n_features_in_ = self.n_features_in_
        other.processes_ = [process.told(weights_MK) for process in self.processes_]
        return other


class ResponseProcess(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The process of one target; the arguments are those of `ResponseProcesses`, of one row of S."""

    def __init__(self, row_K: FloatArray, curved_KK: FloatArray, reference_K: FloatArray, saturation: float) -> None:
        self.row_K = row_K
        self.curved_KK = curved_KK
        self.reference_K = reference_K
        self.saturation = saturation

    def fit(self, X: FloatArray, y: FloatArray) -> "ResponseProcess":
        """Fit mixtures (N, K) and losses (N,)."""
        self.weights_ = np.ascontiguousarray(X, dtype=np.float64)
        self.response_ = np.asarray(y, dtype=np.float64)
        self.n_features_in_ = self.weights_.shape[1]
        self.theta_, self.correction_ = np.empty(0), 1.0
        if not varies(self.response_[:, None])[0]:
            return self
        roots_NK = np.sqrt(self.weights_)
        distance_NN = np.sqrt(np.square(roots_NK[:, None] - roots_NK[None]).sum(axis=-1))
        self.length_unit_ = float(np.median(distance_NN[distance_NN > 0], axis=None)) if distance_NN.any() else 1.0
        told_N, _ = self._features(self.weights_)
        self.unit_ = float(told_N.std()) or 1.0
        prior_H = np.log([self._slope(told_N / self.unit_), _RESIDUAL, _LENGTH, _NOISE, _CORRECTION])
        reach_H = _REACH * _WIDTHS
        self.theta_ = minimize(
            self._negative_log_posterior,
            prior_H,
            args=(prior_H,),
            method="L-BFGS-B",
            bounds=list(zip((prior_H - reach_H).tolist(), (prior_H + reach_H).tolist(), strict=True)),
            options={"maxiter": 60},
        ).x
        residual_N, variance_N = self._left_out()
        squares = float(np.square(residual_N / np.sqrt(variance_N)).sum())
        self.correction_ = float(np.sqrt((squares + _TRUST) / (len(residual_N) + _TRUST)))
        return self

    @property
    def noise(self) -> float:
        """Standard deviation of a branch around the response, corrected."""
        return float(np.exp(self.theta_[0] + self.theta_[3])) * self.correction_ if self.theta_.size else 0.0

    def predict(self, X: FloatArray) -> FloatArray:
        """Return the predicted losses (M,) of mixtures (M, K)."""
        return self.posterior(X)[0]

    def posterior(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of the losses of mixtures (M, K), each (M,)."""
        weights_MK = np.asarray(X, dtype=np.float64)
        if not self.theta_.size:
            return np.full(len(weights_MK), self.response_.mean()), np.zeros(len(weights_MK))
        factor = cho_factor(self._covariance(self.weights_), lower=True)
        ones_N, left_N = np.ones(len(self.response_)), self.response_ - self._mean(self.weights_)
        solved_N = cho_solve(factor, ones_N)
        level = float(solved_N @ left_N / solved_N.sum())
        across_MN = self._kernel(weights_MK, self.weights_)
        inverse_NM = cho_solve(factor, across_MN.T)
        mean_M = self._mean(weights_MK) + level + inverse_NM.T @ (left_N - level)
        prior_M = np.exp(2 * self.theta_[0]) * self._variances(weights_MK)
        flat_M = (1 - across_MN @ solved_N) ** 2 / solved_N.sum()
        variance_M = prior_M - (across_MN * inverse_NM.T).sum(axis=1) + flat_M
        return mean_M, np.sqrt(np.maximum(variance_M, 0)) * self.correction_

    def gain(self, weights_K: FloatArray, over_K: FloatArray) -> tuple[float, float]:
        """Return how much lower the loss is under one mixture than under another, and the standard deviation."""
        if not self.theta_.size:
            return 0.0, 0.0
        both_2K = np.stack([weights_K, over_K])
        loss_2, _ = self.posterior(both_2K)
        factor = cho_factor(self._covariance(self.weights_), lower=True)
        solved_N = cho_solve(factor, np.ones(len(self.response_)))
        across_N = np.subtract(*self._kernel(both_2K, self.weights_))
        prior_22 = self._kernel(both_2K, both_2K)
        variance = prior_22[0, 0] + prior_22[1, 1] - 2 * prior_22[0, 1]
        variance += (across_N @ solved_N) ** 2 / solved_N.sum() - across_N @ cho_solve(factor, across_N)
        return float(loss_2[1] - loss_2[0]), float(np.sqrt(max(variance, 0.0))) * self.correction_

    def told(self, weights_MK: FloatArray) -> "ResponseProcess":
        """Return the process with the same hyper-parameters, had these mixtures been measured as they are predicted."""
        other = ResponseProcess(self.row_K, self.curved_KK, self.reference_K, self.saturation)
        other.__dict__.update(self.__dict__)
        other.weights_ = np.concatenate([self.weights_, weights_MK])
        other.response_ = np.concatenate([self.response_, self.predict(weights_MK)])
        return other

    def _features(self, weights_MK: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what the response model tells of the gain, and `r z`, in the unit of S."""
        off_MK = weights_MK - self.reference_K
        bent_M = self.saturation * bend(weights_MK, self.reference_K, self.curved_KK)
        return off_MK @ self.row_K - bent_M, bent_M

    def _slope(self, told_N: FloatArray) -> float:
        """Return the least-squares slope of the fall of the response on what was told of it, but no negative one."""
        off_N, fall_N = told_N - told_N.mean(), self.response_.mean() - self.response_
        least = _LEAST_SLOPE * float(fall_N.std())
        return max(float(off_N @ fall_N) / float(off_N @ off_N), least) if off_N.any() else float(fall_N.std())

    def _mean(self, weights_MK: FloatArray) -> FloatArray:
        mean_M: FloatArray = -np.exp(self.theta_[0]) * self._features(weights_MK)[0] / self.unit_
        return mean_M

    def _kernel(self, weights_MK: FloatArray, weights_NK: FloatArray, theta_H: FloatArray | None = None) -> FloatArray:
        scale, residual, length, _, correction = np.exp(self.theta_ if theta_H is None else theta_H)
        unit = length * self.length_unit_
        matern_MN, _ = matern(np.sqrt(weights_MK) / unit, np.sqrt(weights_NK) / unit)
        bent_M, bent_N = (self._features(some_MK)[1] / self.unit_ for some_MK in (weights_MK, weights_NK))
        kernel_MN: FloatArray = scale**2 * (residual**2 * matern_MN + correction**2 * np.outer(bent_M, bent_N))
        return kernel_MN

    def _variances(self, weights_MK: FloatArray) -> FloatArray:
        """Return the diagonal of the kernel over s², (M,)."""
        bent_M = self._features(weights_MK)[1] / self.unit_
        variance_M: FloatArray = np.exp(2 * self.theta_[1]) + np.exp(2 * self.theta_[4]) * bent_M**2
        return variance_M

    def _covariance(self, weights_NK: FloatArray, theta_H: FloatArray | None = None) -> FloatArray:
        theta_H = self.theta_ if theta_H is None else theta_H
        covariance_NN = self._kernel(weights_NK, weights_NK, theta_H)
        covariance_NN[np.diag_indices_from(covariance_NN)] += np.exp(2 * theta_H[0]) * (
            np.exp(2 * theta_H[3]) + _JITTER
        )
        return covariance_NN

    def _negative_log_posterior(self, theta_H: FloatArray, prior_H: FloatArray) -> float:
        """Return `−ln p(y | θ) − ln p(θ)` with μ integrated out, up to a constant."""
        try:
            lower_NN = np.linalg.cholesky(self._covariance(self.weights_, theta_H))
        except np.linalg.LinAlgError:
            return _IMPOSSIBLE
        told_N = self._features(self.weights_)[0] / self.unit_
        left_N = np.linalg.solve(lower_NN, self.response_ + np.exp(theta_H[0]) * told_N)
        ones_N = np.linalg.solve(lower_NN, np.ones(len(left_N)))
        precision = float(ones_N @ ones_N)
        left_N = left_N - (ones_N @ left_N) / precision * ones_N
        off_H = (theta_H - prior_H) / _WIDTHS
        log_determinant = float(np.log(lower_NN.diagonal()).sum()) + 0.5 * np.log(precision)
        return float(0.5 * left_N @ left_N + log_determinant + 0.5 * off_H @ off_H)

    def _left_out(self) -> tuple[FloatArray, FloatArray]:
        """Return each row's residual to what the others say, with its variance, μ being integrated out; each (N,)."""
        inverse_NN = np.linalg.inv(self._covariance(self.weights_))
        ones_N = inverse_NN.sum(axis=1)
        inverse_NN = inverse_NN - np.outer(ones_N, ones_N) / ones_N.sum()
        variance_N = 1 / inverse_NN.diagonal()
        residual_N: FloatArray = (inverse_NN @ (self.response_ - self._mean(self.weights_))) * variance_N
        return residual_N, variance_N
