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

Rows of elsewhere (`Evidence`: earlier rounds, a user's table) share s, d and f, and have of each source a level of
their own, and beside f and the noise a process and noise of their own, as large as the likelihood finds: how far they
may be believed.

Axes: N rows, M other mixtures, T targets, K domains, G sources of rows, H = 5 hyper-parameters, logarithms, or
7 with rows of elsewhere.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, RegressorMixin

from tikmix_pipeline.mixture.second_order import bend
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.evidence import Evidence
from tikmix_pipeline.mixture.sweep.gaussian_process import matern
from tikmix_pipeline.mixture.sweep.responses import varies

_RESIDUAL, _LENGTH, _NOISE, _CORRECTION = 0.3, 1.5, 0.1, 0.3
"""Means of the priors: deviations in units of s u, and the length in those of the median distance between rows."""
_WIDTHS = np.array([1.0, 1.0, 0.7, 1.0, 0.7])
"""Standard deviations of the logarithms of s, f, the length, the noise and d."""
_ELSEWHERE, _ELSEWHERE_WIDTHS = (0.3, 0.1), np.array([1.0, 1.5])
"""The same for the process and the noise that rows of elsewhere have of their own."""
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
        evidence: rows of elsewhere, over the same targets and domains.
    """

    def __init__(
        self,
        influence_TK: FloatArray,
        curved_KK: FloatArray,
        reference_K: FloatArray,
        saturation: float,
        evidence: Evidence | None = None,
    ) -> None:
        self.influence_TK = influence_TK
        self.curved_KK = curved_KK
        self.reference_K = reference_K
        self.saturation = saturation
        self.evidence = evidence

    def fit(self, X: FloatArray, y: FloatArray) -> "ResponseProcesses":
        """Fit mixtures (N, K) and losses (N, T)."""
        weights_NK, response_NT = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
        self.n_features_in_ = weights_NK.shape[1]
        self.processes_ = [
            self._process(target).fit(weights_NK, response_N) for target, response_N in enumerate(response_NT.T)
        ]
        return self

    def _process(self, target: int) -> "ResponseProcess":
        evidence = None if self.evidence is None else self.evidence.of_target(target)
        return ResponseProcess(self.influence_TK[target], self.curved_KK, self.reference_K, self.saturation, evidence)

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
        other = ResponseProcesses(self.influence_TK, self.curved_KK, self.reference_K, self.saturation, self.evidence)
        other.n_features_in_ = self.n_features_in_
        other.processes_ = [process.told(weights_MK) for process in self.processes_]
        return other


class ResponseProcess(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The process of one target; the arguments are those of `ResponseProcesses`, of one row of S."""

    def __init__(
        self,
        row_K: FloatArray,
        curved_KK: FloatArray,
        reference_K: FloatArray,
        saturation: float,
        evidence: Evidence | None = None,
    ) -> None:
        self.row_K = row_K
        self.curved_KK = curved_KK
        self.reference_K = reference_K
        self.saturation = saturation
        self.evidence = evidence

    def fit(self, X: FloatArray, y: FloatArray) -> "ResponseProcess":
        """Fit mixtures (N, K) and losses (N,)."""
        own_NK, own_N = np.ascontiguousarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
        self.n_features_in_, self.own_ = own_NK.shape[1], len(own_N)
        self.weights_, self.response_, self.source_ = _together(own_NK, own_N, self.evidence)
        self.theta_, self.correction_ = np.empty(0), 1.0
        if not varies(own_N[:, None])[0]:
            return self
        roots_NK = np.sqrt(own_NK)
        distance_NN = np.sqrt(np.square(roots_NK[:, None] - roots_NK[None]).sum(axis=-1))
        self.length_unit_ = float(np.median(distance_NN[distance_NN > 0], axis=None)) if distance_NN.any() else 1.0
        told_N, _ = self._features(own_NK)
        self.unit_ = float(told_N.std()) or 1.0
        more = _ELSEWHERE if self.source_.any() else ()
        prior_H = np.log([_slope(told_N / self.unit_, own_N), _RESIDUAL, _LENGTH, _NOISE, _CORRECTION, *more])
        width_H = np.append(_WIDTHS, _ELSEWHERE_WIDTHS)[: len(prior_H)]
        reach_H = _REACH * width_H
        self.theta_ = minimize(
            self._negative_log_posterior,
            prior_H,
            args=(prior_H, width_H),
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
            own_N = self.response_[: self.own_]
            return np.full(len(weights_MK), own_N.mean()), np.zeros(len(weights_MK))
        known = self._known()
        across_MN = self._kernel(weights_MK, self.weights_)
        own_G = np.eye(known.precision_GG.shape[0])[0]
        mean_M = self._mean(weights_MK) + known.level_G[0] + across_MN @ known.residual_N
        prior_M = np.exp(2 * self.theta_[0]) * self._variances(weights_MK)
        variance_M = prior_M + known.more_variance(across_MN, own_G)
        return mean_M, np.sqrt(np.maximum(variance_M, 0)) * self.correction_

    def gain(self, weights_K: FloatArray, over_K: FloatArray) -> tuple[float, float]:
        """Return how much lower the loss is under one mixture than under another, and the standard deviation."""
        if not self.theta_.size:
            return 0.0, 0.0
        both_2K, known = np.stack([weights_K, over_K]), self._known()
        across_2N = self._kernel(both_2K, self.weights_)
        loss_2 = self._mean(both_2K) + across_2N @ known.residual_N
        prior_22 = self._kernel(both_2K, both_2K)
        variance = prior_22[0, 0] + prior_22[1, 1] - 2 * prior_22[0, 1]
        variance += known.more_variance(across_2N[:1] - across_2N[1:], np.zeros(len(known.level_G)))[0]
        return float(loss_2[1] - loss_2[0]), float(np.sqrt(max(variance, 0.0))) * self.correction_

    def told(self, weights_MK: FloatArray) -> "ResponseProcess":
        """Return the process with the same hyper-parameters, had these mixtures been measured as they are predicted."""
        other = ResponseProcess(self.row_K, self.curved_KK, self.reference_K, self.saturation, self.evidence)
        other.__dict__.update(self.__dict__)
        other.weights_ = np.concatenate([weights_MK, self.weights_])
        other.response_ = np.concatenate([self.predict(weights_MK), self.response_])
        other.source_ = np.concatenate([np.zeros(len(weights_MK), dtype=np.int64), self.source_])
        other.own_ = self.own_ + len(weights_MK)
        return other

    def _features(self, weights_MK: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what the response model tells of the gain, and `r z`, in the unit of S."""
        off_MK = weights_MK - self.reference_K
        bent_M = self.saturation * bend(weights_MK, self.reference_K, self.curved_KK)
        return off_MK @ self.row_K - bent_M, bent_M

    def _mean(self, weights_MK: FloatArray) -> FloatArray:
        mean_M: FloatArray = -np.exp(self.theta_[0]) * self._features(weights_MK)[0] / self.unit_
        return mean_M

    def _matern(self, weights_MK: FloatArray, weights_NK: FloatArray, theta_H: FloatArray) -> FloatArray:
        unit = np.exp(theta_H[2]) * self.length_unit_
        matern_MN, _ = matern(np.sqrt(weights_MK) / unit, np.sqrt(weights_NK) / unit)
        return matern_MN

    def _kernel(self, weights_MK: FloatArray, weights_NK: FloatArray, theta_H: FloatArray | None = None) -> FloatArray:
        """Return the covariance of responses here with one another, or with rows of any source."""
        theta_H = self.theta_ if theta_H is None else theta_H
        scale, residual, correction = np.exp(theta_H[[0, 1, 4]])
        matern_MN = self._matern(weights_MK, weights_NK, theta_H)
        bent_M, bent_N = (self._features(some_MK)[1] / self.unit_ for some_MK in (weights_MK, weights_NK))
        kernel_MN: FloatArray = scale**2 * (residual**2 * matern_MN + correction**2 * np.outer(bent_M, bent_N))
        return kernel_MN

    def _variances(self, weights_MK: FloatArray) -> FloatArray:
        """Return the diagonal of the kernel over s², (M,)."""
        bent_M = self._features(weights_MK)[1] / self.unit_
        variance_M: FloatArray = np.exp(2 * self.theta_[1]) + np.exp(2 * self.theta_[4]) * bent_M**2
        return variance_M

    def _covariance(self, theta_H: FloatArray) -> FloatArray:
        """Return the covariance of the rows, noise and what each source has of its own included."""
        covariance_NN = self._kernel(self.weights_, self.weights_, theta_H)
        variance_N = np.full(len(self.source_), np.exp(2 * theta_H[3]) + _JITTER)
        if len(theta_H) > len(_WIDTHS):
            process, noise = np.exp(2 * theta_H[len(_WIDTHS) :])
            of_one_NN = (self.source_[:, None] == self.source_[None]) & (self.source_ > 0)
            own_NN = self._matern(self.weights_, self.weights_, theta_H) * of_one_NN
            covariance_NN += np.exp(2 * theta_H[0]) * process * own_NN
            variance_N += noise * (self.source_ > 0)
        covariance_NN[np.diag_indices_from(covariance_NN)] += np.exp(2 * theta_H[0]) * variance_N
        return covariance_NN

    def _known(self) -> "_Known":
        left_N = self.response_ - self._mean(self.weights_)
        return _Known.of(self._covariance(self.theta_), _levels(self.source_), left_N)

    def _negative_log_posterior(self, theta_H: FloatArray, prior_H: FloatArray, width_H: FloatArray) -> float:
        """Return `−ln p(y | θ) − ln p(θ)` with all levels integrated out, up to a constant."""
        try:
            lower_NN = np.linalg.cholesky(self._covariance(theta_H))
        except np.linalg.LinAlgError:
            return _IMPOSSIBLE
        told_N = self._features(self.weights_)[0] / self.unit_
        left_N = np.linalg.solve(lower_NN, self.response_ + np.exp(theta_H[0]) * told_N)
        level_NG = np.linalg.solve(lower_NN, _levels(self.source_))
        precision_GG = level_NG.T @ level_NG
        left_N = left_N - level_NG @ np.linalg.solve(precision_GG, level_NG.T @ left_N)
        off_H = (theta_H - prior_H) / width_H
        log_determinant = float(np.log(lower_NN.diagonal()).sum() + 0.5 * np.linalg.slogdet(precision_GG)[1])
        return float(0.5 * left_N @ left_N + log_determinant + 0.5 * off_H @ off_H)

    def _left_out(self) -> tuple[FloatArray, FloatArray]:
        """Return own rows' residuals to what all others say, with their variances, levels integrated out; each (N,)."""
        inverse_NN = np.linalg.inv(self._covariance(self.theta_))
        level_NG = inverse_NN @ _levels(self.source_)
        precision_GG = _levels(self.source_).T @ level_NG
        inverse_NN = inverse_NN - level_NG @ np.linalg.solve(precision_GG, level_NG.T)
        own = slice(self.own_)
        variance_N = 1 / inverse_NN.diagonal()[own]
        residual_N: FloatArray = (inverse_NN @ (self.response_ - self._mean(self.weights_)))[own] * variance_N
        return residual_N, variance_N


@dataclass(frozen=True, eq=False)
class _Known:
    """What rows tell of a process with flat levels (Rasmussen and Williams 2006, section 2.7)."""

    factor: tuple[FloatArray, bool]
    """The Cholesky factor of the rows' covariance C."""
    solved_NG: FloatArray
    """C⁻¹H, H being which level a row has."""
    precision_GG: FloatArray
    """HᵀC⁻¹H."""
    level_G: FloatArray
    residual_N: FloatArray
    """C⁻¹ of the rows without mean and level."""

    @classmethod
    def of(cls, covariance_NN: FloatArray, level_NG: FloatArray, left_N: FloatArray) -> "_Known":
        factor = cho_factor(covariance_NN, lower=True)
        solved_NG = cho_solve(factor, level_NG)
        precision_GG = level_NG.T @ solved_NG
        level_G = np.linalg.solve(precision_GG, solved_NG.T @ left_N)
        return cls(factor, solved_NG, precision_GG, level_G, cho_solve(factor, left_N - level_NG @ level_G))

    def more_variance(self, across_MN: FloatArray, level_G: FloatArray) -> FloatArray:
        """Return what rows and their levels add to the prior variance of values with these levels, (M,)."""
        told_M = (across_MN * cho_solve(self.factor, across_MN.T).T).sum(axis=1)
        off_MG = level_G - across_MN @ self.solved_NG
        more_M: FloatArray = (off_MG * np.linalg.solve(self.precision_GG, off_MG.T).T).sum(axis=1) - told_M
        return more_M


def _together(
    own_NK: FloatArray, own_N: FloatArray, evidence: Evidence | None
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Return mixtures and losses, own rows first, and the source of each row, 0 for its own."""
    none_N = np.zeros(len(own_N), dtype=np.int64)
    if evidence is None:
        return own_NK, own_N, none_N
    return (
        np.concatenate([own_NK, evidence.weights_EK]),
        np.concatenate([own_N, evidence.loss_ET[:, 0]]),
        np.concatenate([none_N, evidence.source_E]),
    )


def _levels(source_N: npt.NDArray[np.int64]) -> FloatArray:
    """Return H, (N, G): which level each row has, that of the own rows first."""
    level_NG: FloatArray = (source_N[:, None] == np.unique(source_N)[None]).astype(np.float64)
    return level_NG


def _slope(told_N: FloatArray, loss_N: FloatArray) -> float:
    """Return the least-squares slope of the fall of the loss on what was told of it, but no negative one."""
    off_N, fall_N = told_N - told_N.mean(), loss_N.mean() - loss_N
    least = _LEAST_SLOPE * float(fall_N.std())
    return max(float(off_N @ fall_N) / float(off_N @ off_N), least) if off_N.any() else float(fall_N.std())
