"""The surrogates behind one interface: `fit(weights_NK, response_NT)`, `predict(weights_MK)` -> (M, T).

    linear     ordinary least squares on w
    ridge      ridge regression on [w, ln(w + ε)], standardised
    xgboost    boosted regression trees on w
    gp         a Gaussian process on powers of w (`gaussian_process`); of few rows, targets share what they can tell
               (`pooled_process`)
    loglinear  Olmix's law, c + exp(a·w) (`log_linear`)
    response   a Gaussian process around what influence tells to second order (`response_process`)

A target has a model of its own. What a model has to choose (ε and the penalty; the depth and the number of trees; the
length-scales) it chooses within the rows that it is fitted on: so a cross-validation around `fit` is a nested one. The
same rows in the same order and the same seed give the same predictions; another order deals other folds.
`fitted_surrogate` fits in one thread; predictions take those that the linear algebra is given.

Axes: N rows, M other rows, K domains, T targets, F folds.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.equal_runs import dealt_into_folds
from tikmix_pipeline.mixture.sweep.gaussian_process import Warp, student_t_noise
from tikmix_pipeline.mixture.sweep.log_linear import LogLinear
from tikmix_pipeline.mixture.sweep.pooled_process import PooledGaussianProcesses
from tikmix_pipeline.mixture.sweep.response_mean import ResponseMean
from tikmix_pipeline.mixture.sweep.responses import Responses, varies
from tikmix_pipeline.parameters.sweep import SurrogateKind

if TYPE_CHECKING:
    import pandas as pd

_EPSILONS = (1e-4, 1e-3, 1e-2, 1e-1)
_PENALTIES = np.logspace(-4, 3, 15)

_DEPTHS = (2, 4)
_TREES = 300
_REPETITIONS = 3
"""The prediction is the mean of so many fits, which differ in the rows that each tree sees."""
_LOG_OFFSET = math.log(0.1)
"""The response is fitted as its logarithm above a floor a tenth of the range below its least value (`Warp`)."""
_STEP = 20
"""The number of trees is a multiple of this."""
_PATIENCE = 40
"""No more trees are tried once so many have brought no better score on the held-out rows of all folds together."""
_TREE_SETTINGS = {"learning_rate": 0.15, "subsample": 0.8, "max_bin": 64, "tree_method": "hist"}

_PERMUTATIONS = 5

SURROGATE_FILE = "surrogate.skops"

TRUSTED_TYPES = (
    "sklearn.multioutput.MultiOutputRegressor",
    "tikmix_pipeline.mixture.sweep.gaussian_process.MixtureGaussianProcess",
    "tikmix_pipeline.mixture.sweep.log_linear.LogLinear",
    "tikmix_pipeline.mixture.sweep.pooled_process.PooledGaussianProcesses",
    "tikmix_pipeline.mixture.sweep.evidence.Evidence",
    "tikmix_pipeline.mixture.sweep.response_process.ResponseProcess",
    "tikmix_pipeline.mixture.sweep.response_process.ResponseProcesses",
    "tikmix_pipeline.mixture.sweep.surrogates.BoostedTrees",
    "tikmix_pipeline.mixture.sweep.surrogates.LogRidge",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBRegressor",
)
"""What a file may hold besides the types that skops itself trusts."""


def build_surrogate(kind: SurrogateKind, *, folds: int, seed: int, mean: ResponseMean | None = None) -> Any:
    """Return a scikit-learn regressor of several targets, not yet fitted.

    The folds are those of the inner cross-validation of `xgboost`; `ridge` leaves out one row at a time, `gp` and
    `response` go by the marginal likelihood. `mean` is what influence tells, for `response`.
    """
    if kind == "response":
        if mean is None:
            raise ValueError("the surrogate 'response' needs what influence tells")
        return mean.processes()
    if kind == "linear":
        return LinearRegression()
    if kind == "ridge":
        return MultiOutputRegressor(LogRidge())
    if kind == "gp":
        return PooledGaussianProcesses()
    if kind == "loglinear":
        return MultiOutputRegressor(LogLinear())
    return MultiOutputRegressor(BoostedTrees(folds=folds, seed=seed))


def fitted_surrogate(
    kind: SurrogateKind, responses: Responses, *, folds: int, seed: int, mean: ResponseMean | None = None
) -> Any:
    """Return a surrogate fitted on all rows; the arguments are those of `build_surrogate`.

    One thread: more of the linear algebra's gain nothing at this size, and lose much beside other processes.
    """
    with threadpool_limits(1):
        surrogate = build_surrogate(kind, folds=folds, seed=seed, mean=mean)
        return surrogate.fit(responses.weights_NK, responses.response_NT)


class LogRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression of one response on `[w, ln(w + ε)]`; ε and the penalty have the least leave-one-out error."""

    def fit(self, X: FloatArray, y: FloatArray) -> "LogRidge":
        """Fit mixtures (N, K) and responses (N,)."""
        best = -np.inf
        for epsilon in _EPSILONS:
            features_NF = _with_logarithms(X, epsilon)
            scaler = StandardScaler().fit(features_NF)
            ridge = RidgeCV(_PENALTIES).fit(scaler.transform(features_NF), y)
            if ridge.best_score_ > best:
                best, self.epsilon_, self.scaler_, self.ridge_ = ridge.best_score_, epsilon, scaler, ridge
        self.n_features_in_ = np.shape(X)[1]
        return self

    def predict(self, X: FloatArray) -> FloatArray:
        """Return the predicted response (M,) of mixtures (M, K)."""
        response_M: FloatArray = self.ridge_.predict(self.scaler_.transform(_with_logarithms(X, self.epsilon_)))
        return response_M


def _with_logarithms(weights_NK: FloatArray, epsilon: float) -> FloatArray:
    return np.concatenate([weights_NK, np.log(np.asarray(weights_NK) + epsilon)], axis=1)


class BoostedTrees(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """XGBoost of one response; depth and number of trees have the least error in a cross-validation within the rows.

    The folds grow together, so that none stops at the number of trees that suits itself. Their errors on held-out rows
    also say which rows are outliers, and the final fits give these less weight (`student_t_noise`). The response is
    levelled and standardised first (`Warp`): XGBoost counts in single precision, and influence can be very small.
    """

    def __init__(self, *, folds: int = 5, seed: int = 0) -> None:
        self.folds = folds
        self.seed = seed

    def fit(self, X: FloatArray, y: FloatArray) -> "BoostedTrees":
        """Fit mixtures (N, K) and responses (N,)."""
        from xgboost import XGBRegressor

        self.response_ = np.asarray(y, dtype=np.float64)
        self.n_features_in_ = np.shape(X)[1]
        self.models_ = []
        if varies(self.response_[:, None])[0]:
            z_N = Warp.of(self.response_, _LOG_OFFSET).forward(self.response_)
            self.depth_, self.trees_, errors_N = self._choose(np.asarray(X), z_N)
            for repetition in range(_REPETITIONS):
                model = XGBRegressor(
                    n_estimators=self.trees_,
                    max_depth=self.depth_,
                    base_score=0.0,
                    random_state=self.seed * _REPETITIONS + repetition,
                    n_jobs=1,
                    **_TREE_SETTINGS,
                )
                self.models_.append(model.fit(X, z_N, sample_weight=1 / student_t_noise(errors_N)))
        return self

    def predict(self, X: FloatArray) -> FloatArray:
        """Return the predicted response (M,) of mixtures (M, K)."""
        if not self.models_:
            return np.full(len(X), self.response_.mean())
        z_M: FloatArray = np.stack([model.predict(X) for model in self.models_]).mean(axis=0, dtype=np.float64)
        return Warp.of(self.response_, _LOG_OFFSET).backward(z_M)

    def _choose(self, weights_NK: FloatArray, z_N: FloatArray) -> tuple[int, int, FloatArray]:
        """Return depth, number of trees, and the errors (N,) that they make on rows held out."""
        folds = dealt_into_folds(weights_NK, self.folds, self.seed)
        found = {depth: self._fewest_errors(depth, weights_NK, z_N, folds) for depth in _DEPTHS}
        depth = min(found, key=lambda depth: float(np.abs(found[depth][1]).mean()))
        return depth, *found[depth]

    def _fewest_errors(
        self, depth: int, weights_NK: FloatArray, z_N: FloatArray, folds: Sequence[tuple[Any, Any]]
    ) -> tuple[int, FloatArray]:
        """Return the number of trees with the least mean absolute error on held-out rows, and these errors (N,)."""
        from xgboost import Booster, DMatrix, QuantileDMatrix

        settings = {**_TREE_SETTINGS, "nthread": 1, "max_depth": depth, "base_score": 0.0, "seed": self.seed}
        boosters = []
        for fitted, held_out in folds:
            data = QuantileDMatrix(weights_NK[fitted], z_N[fitted], max_bin=_TREE_SETTINGS["max_bin"], nthread=1)
            held_out_data = DMatrix(weights_NK[held_out], nthread=1)
            boosters.append((Booster(settings, [data, held_out_data]), data, held_out_data, held_out))
        best, fewest = 0, np.full_like(z_N, np.inf)
        for trees in range(_STEP, _TREES + 1, _STEP):
            errors_N = z_N.copy()
            for booster, data, held_out_data, held_out in boosters:
                for tree in range(trees - _STEP, trees):
                    booster.update(data, tree)
                errors_N[held_out] -= booster.predict(held_out_data)
            if np.abs(errors_N).mean() < np.abs(fewest).mean():
                best, fewest = trees, errors_N
            if trees - best >= _PATIENCE:
                break
        return best, fewest


def importance(surrogate: Any, weights_NK: FloatArray, response_NT: FloatArray, *, seed: int) -> FloatArray:
    """Return how much of each prediction hangs on each domain.

    That is the growth of the root mean squared error when the domain's weights change places between rows, over the
    standard deviation of the target, on average over five permutations. (Permuted rows no longer sum to 1; the
    surrogates do not mind.) The shape is (T, K); nan for a target that is the same in all rows.
    """
    generator = np.random.default_rng(seed)
    varies_T = varies(response_NT)
    spread_T = np.where(varies_T, response_NT.std(axis=0), np.nan)
    error_T = _errors(surrogate, weights_NK, response_NT)
    growth_TK = np.zeros((response_NT.shape[1], weights_NK.shape[1]))
    for _ in range(_PERMUTATIONS):
        order = generator.permutation(len(weights_NK))
        for k in range(weights_NK.shape[1]):
            permuted_NK = weights_NK.copy()
            permuted_NK[:, k] = weights_NK[order, k]
            growth_TK[:, k] += _errors(surrogate, permuted_NK, response_NT) - error_T
    return growth_TK / _PERMUTATIONS / spread_T[:, None]


def importance_table(surrogate: Any, responses: Responses, *, seed: int) -> "pd.DataFrame":
    """Return `importance` with a row per target and domain: `target, domain, importance`."""
    import pandas as pd

    importance_TK = importance(surrogate, responses.weights_NK, responses.response_NT, seed=seed)
    pairs = itertools.product(responses.targets, responses.domains)
    return pd.DataFrame(pairs, columns=["target", "domain"]).assign(importance=importance_TK.ravel())


def _errors(surrogate: Any, weights_NK: FloatArray, response_NT: FloatArray) -> FloatArray:
    root_T: FloatArray = np.sqrt(np.square(surrogate.predict(weights_NK) - response_NT).mean(axis=0))
    return root_T


def save_surrogate(surrogate: Any, folder: Path) -> None:
    """Write a fitted surrogate into `folder`."""
    from skops.io import dump

    with replacing(folder / SURROGATE_FILE) as temporary:
        dump(surrogate, temporary)


def load_surrogate(folder: Path) -> Any:
    """Read a fitted surrogate.

    Raises:
        TikmixError: the file is not there, is damaged, or holds a type that is not trusted.
    """
    import zipfile

    from skops.io import get_untrusted_types, load

    file = folder / SURROGATE_FILE
    if not file.exists():
        raise TikmixError(f"{file} is not there. Run the `sweep` pipeline to fit a surrogate.")
    try:
        unknown = sorted({*get_untrusted_types(file=file)} - {*TRUSTED_TYPES})
        if unknown:
            raise TikmixError(f"{file} holds {', '.join(unknown)}, which no surrogate does. Delete it and fit again.")
        return load(file, trusted=list(TRUSTED_TYPES))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise TikmixError(f"{file} is damaged ({error}). Delete it and run the `sweep` pipeline again.") from error
