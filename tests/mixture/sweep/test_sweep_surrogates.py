import numpy as np
import pytest
import skops.io
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import FunctionTransformer

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.sweep.surrogates import (
    SURROGATE_FILE,
    BoostedTrees,
    LogRidge,
    build_surrogate,
    importance,
    load_surrogate,
    save_surrogate,
)
from tikmix_pipeline.parameters.sweep import TABLE_SURROGATES


def surface(weights_NK):
    return np.stack([-np.log(0.02 + weights_NK[:, 0]), weights_NK[:, 1] - 2 * weights_NK[:, 2]], axis=1)


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).dirichlet(np.ones(5), size=80)


@pytest.fixture(scope="module")
def unseen():
    return np.random.default_rng(1).dirichlet(np.ones(5), size=200)


@pytest.mark.parametrize(("kind", "least"), [("linear", 0.9), ("ridge", 0.99), ("xgboost", 0.9), ("gp", 0.99)])
def test_each_surrogate_predicts_all_targets_of_unseen_mixtures(kind, least, rows, unseen):
    predicted_NT = build_surrogate(kind, folds=3, seed=0).fit(rows, surface(rows)).predict(unseen)
    assert predicted_NT.shape == (200, 2)
    assert min(spearmanr(predicted_NT[:, t], surface(unseen)[:, t]).statistic for t in range(2)) > least


@pytest.mark.parametrize("kind", TABLE_SURROGATES)
def test_one_target_gives_one_column(kind, rows, unseen):
    assert build_surrogate(kind, folds=3, seed=0).fit(rows, surface(rows)[:, :1]).predict(unseen).shape == (200, 1)


@pytest.mark.parametrize("kind", TABLE_SURROGATES)
def test_same_rows_and_seed_give_the_same_bits(kind, rows, unseen):
    first, again = (build_surrogate(kind, folds=3, seed=7).fit(rows, surface(rows)).predict(unseen) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("kind", TABLE_SURROGATES)
def test_a_constant_target_is_predicted_as_that_constant(kind, rows, unseen):
    response_NT = np.stack([surface(rows)[:, 0], np.full(len(rows), 3.0)], axis=1)
    predicted_NT = build_surrogate(kind, folds=3, seed=0).fit(rows, response_NT).predict(unseen)
    assert predicted_NT[:, 1] == pytest.approx(np.full(len(unseen), 3.0), rel=1e-9)


@pytest.mark.parametrize("kind", TABLE_SURROGATES)
def test_the_unit_of_the_response_does_not_matter(kind, rows, unseen):
    """Influence can be 1e-9 and less, which is lost in single precision beside a mean of 1."""
    usual, small = (
        build_surrogate(kind, folds=3, seed=0).fit(rows, unit * surface(rows)).predict(unseen) / unit
        for unit in (1.0, 2.0**-30)
    )
    assert small == pytest.approx(usual, rel=1e-6)


@pytest.mark.parametrize("kind", TABLE_SURROGATES)
def test_scikit_learn_clones_and_cross_validates_it(kind, rows):
    surrogate = clone(build_surrogate(kind, folds=2, seed=0))
    assert cross_val_predict(surrogate, rows[:24], surface(rows[:24]), cv=2).shape == (24, 2)


def test_hyper_parameters_are_chosen_within_the_rows_of_the_fit(rows, unseen, monkeypatch):
    """A row that is not fitted on may change nothing, so a cross-validation around `fit` is a nested one."""
    seen = []
    choose = BoostedTrees._choose
    monkeypatch.setattr(BoostedTrees, "_choose", lambda self, X, z: (seen.append(X), choose(self, X, z))[1])
    trees = build_surrogate("xgboost", folds=3, seed=0)
    cross_val_predict(trees, rows, surface(rows)[:, :1], cv=2)
    assert [len(weights_NK) for weights_NK in seen] == [40, 40]
    assert not {*map(tuple, seen[0])} & {*map(tuple, seen[1])}


def test_inner_folds_have_two_rows_each_where_there_are_enough(rows, monkeypatch):
    dealt = []
    monkeypatch.setattr(
        BoostedTrees, "_fewest_errors", lambda self, depth, X, z, folds: (dealt.append(folds), (20, np.ones(len(z))))[1]
    )
    BoostedTrees(folds=5).fit(rows[:7], surface(rows[:7])[:, 0])
    assert [len(held_out) for _, held_out in dealt[0]] == [3, 2, 2]


def test_noise_gets_fewer_trees_than_a_surface(rows):
    noise_N = np.random.default_rng(2).normal(size=len(rows))
    of_noise, of_surface = (BoostedTrees(folds=3).fit(rows, y) for y in (noise_N, surface(rows)[:, 0]))
    assert of_noise.trees_ < of_surface.trees_


def test_an_outlier_moves_the_trees_little(rows, unseen):
    response_N = surface(rows)[:, 1].copy()
    clean = BoostedTrees(folds=5).fit(rows, response_N).predict(unseen)
    response_N[:4] += 10.0
    bent = BoostedTrees(folds=5).fit(rows, response_N).predict(unseen)
    assert spearmanr(bent, clean).statistic > 0.9


def test_the_ridge_takes_logarithms_near_zero_where_they_fit(rows):
    sharp = LogRidge().fit(rows, -np.log(1e-3 + rows[:, 0]))
    assert sharp.epsilon_ == 1e-3


def test_importance_is_of_the_domains_that_matter(rows):
    response_NT = np.stack([surface(rows)[:, 1], np.ones(len(rows))], axis=1)
    surrogate = build_surrogate("linear", folds=2, seed=0).fit(rows, response_NT)
    importance_TK = importance(surrogate, rows, response_NT, seed=0)
    assert importance_TK.shape == (2, 5)
    assert importance_TK[0].argmax() == 2
    assert np.isnan(importance_TK[1]).all()


@pytest.mark.parametrize("kind", TABLE_SURROGATES)
def test_a_surrogate_predicts_the_same_bits_after_a_round_trip(kind, tmp_path):
    weights_NK = np.random.default_rng(0).dirichlet(np.ones(3), size=24)
    response_NT = np.stack([weights_NK[:, 0] ** 2, np.ones(24)], axis=1)
    surrogate = build_surrogate(kind, folds=2, seed=0).fit(weights_NK, response_NT)
    save_surrogate(surrogate, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [SURROGATE_FILE]
    assert np.array_equal(load_surrogate(tmp_path).predict(weights_NK), surrogate.predict(weights_NK))


def test_a_file_with_any_other_code_is_refused(tmp_path):
    skops.io.dump(FunctionTransformer(func=print), tmp_path / SURROGATE_FILE)
    with pytest.raises(TikmixError, match=r"surrogate\.skops holds .*print.*Delete it"):
        load_surrogate(tmp_path)


def test_a_damaged_or_missing_file_is_said_to_be_that(tmp_path):
    with pytest.raises(TikmixError, match=r"not there.*sweep"):
        load_surrogate(tmp_path)
    skops.io.dump(KNeighborsRegressor(), tmp_path / SURROGATE_FILE)
    (tmp_path / SURROGATE_FILE).write_bytes((tmp_path / SURROGATE_FILE).read_bytes()[:200])
    with pytest.raises(TikmixError, match="damaged"):
        load_surrogate(tmp_path)
