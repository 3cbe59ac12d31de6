import numpy as np
import pytest

from tikmix_pipeline.mixture.sweep.responses import Responses, Scale, fold_count

RNG = np.random.default_rng(0)


def responses():
    return Responses(
        runs=("a", "b", "c"),
        domains=("books", "code"),
        targets=("facts",),
        weights_NK=np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]),
        response_NT=np.array([[1.0], [2.0], [3.0]]),
    )


def test_rows_taken_keep_their_ids_and_their_order():
    taken = responses().take([2, 0])
    assert len(taken) == 2
    assert taken.runs == ("c", "a")
    assert taken.weights_NK.tolist() == [[0.3, 0.7], [0.1, 0.9]]
    assert taken.response_NT.tolist() == [[3.0], [1.0]]


def test_names_and_numbers_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="2 domains and 1 targets"):
        Responses(("a",), ("books", "code"), ("facts",), np.ones((1, 3)) / 3, np.ones((1, 1)))


def test_measured_gains_get_the_mean_and_spread_of_direct_predictions():
    response_NT = RNG.normal(3, 0.01, size=(50, 4))
    direct_NT = RNG.normal(0.6, 0.2, size=(50, 4))
    gains_NT = Scale.like_direct(response_NT, direct_NT).gains(response_NT)
    assert gains_NT.mean(axis=0) == pytest.approx(direct_NT.mean(axis=0))
    assert gains_NT.std(axis=0) == pytest.approx(direct_NT.std(axis=0))
    assert np.corrcoef(gains_NT[:, 0], response_NT[:, 0])[0, 1] == pytest.approx(-1)


def test_responses_that_are_the_direct_prediction_itself_keep_their_gains():
    direct_NT = RNG.normal(size=(20, 3))
    normaliser_T = np.array([0.5, 2.0, 7.0])
    influence_NT = -direct_NT * normaliser_T
    for scale in (Scale.of_normaliser(normaliser_T), Scale.like_direct(influence_NT, direct_NT)):
        assert scale.gains(influence_NT) == pytest.approx(direct_NT)


def test_a_target_of_pure_noise_does_not_get_the_spread_that_direct_expects_of_it():
    """Its branches differ, but no surrogate predicts by how much; another target is known by half."""
    direct_NT, noise_NT = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 3))
    full = Scale.like_direct(noise_NT, direct_NT)
    known = Scale.like_direct(noise_NT, direct_NT, np.array([0.0, 0.5, 1.0]))
    assert full.gains(noise_NT).std(axis=0) == pytest.approx(direct_NT.std(axis=0))
    assert known.counts.tolist() == [False, True, True]
    gains_NT = known.gains(noise_NT)
    assert gains_NT.std(axis=0) == pytest.approx(direct_NT.std(axis=0) * [0.0, 0.5, 1.0])
    assert gains_NT.mean(axis=0)[1:] == pytest.approx(direct_NT.mean(axis=0)[1:])
    assert np.array_equal(gains_NT[:, 2], full.gains(noise_NT)[:, 2])


@pytest.mark.parametrize("column", [np.zeros(5), np.full(5, 3.7), np.full(5, 1e9)])
def test_a_target_that_does_not_vary_is_left_out(column):
    moving = np.linspace(1, 2, 5)
    response_NT = np.stack([moving, column], axis=1)
    for scale in (
        Scale.of_range(response_NT),
        Scale.like_direct(response_NT, np.stack([moving, moving], axis=1)),
        Scale.like_direct(np.stack([moving, moving], axis=1), response_NT),
    ):
        assert scale.counts.tolist() == [True, False]
        assert np.all(scale.gains(response_NT)[:, 1] == 0)


def test_over_the_range_the_best_gains_one_and_the_worst_nothing():
    response_NT = RNG.normal(size=(30, 2))
    gains_NT = Scale.of_range(response_NT).gains(response_NT)
    assert gains_NT.max(axis=0) == pytest.approx(1)
    assert gains_NT.min(axis=0) == pytest.approx(0)
    assert gains_NT[:, 0].argmax() == response_NT[:, 0].argmin()


@pytest.mark.parametrize(
    ("folds", "rows", "count"), [(5, 80, 5), (5, 9, 4), (5, 8, 4), (4, 8, 4), (5, 3, 2), (2, 8, 2)]
)
def test_folds_have_two_rows_each_where_there_are_enough(folds, rows, count):
    assert fold_count(folds, rows) == count
