import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from tikmix_pipeline.mixture.bounds import Bounds, Limit
from tikmix_pipeline.mixture.sweep.search import project, search
from tikmix_pipeline.parameters.sweep import SearchParameters

SEEDS = st.integers(0, 2**32 - 1)
SHORT = SearchParameters(rounds=12, samples=500, top=16)
DEFAULT = SearchParameters()


def free(value_of):
    """An objective under which all mixtures are allowed."""
    return lambda weights_NK: (value_of(weights_NK), np.zeros(len(weights_NK)))


def find(evaluate, start, box=None, parameters=SHORT, seed=0):
    start = np.asarray(start, dtype=float)
    box = box or (np.zeros(start.shape[-1]), np.ones(start.shape[-1]))
    return search(evaluate, start, box=box, parameters=parameters, seed=seed)


def random_box(rng, domains):
    centre = rng.dirichlet(np.ones(domains))
    return centre, (centre * rng.uniform(0, 1, domains), np.minimum(1, centre * rng.uniform(1, 3, domains)))


@given(SEEDS, st.integers(2, 8))
@settings(deadline=None, max_examples=30)
def test_projection_of_many_rows_is_that_of_each(seed, domains):
    rng = np.random.default_rng(seed)
    _, box = random_box(rng, domains)
    rows = rng.dirichlet(np.ones(domains), size=20)
    names = tuple(map(str, range(domains)))
    bounds = Bounds(names, tuple(map(Limit, box[0].tolist())), tuple(map(Limit, box[1].tolist())))
    projected = project(rows, box)
    assert projected == pytest.approx(np.stack([bounds.project(row) for row in rows]), abs=1e-9)
    assert projected.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert project(projected, box) == pytest.approx(projected, abs=1e-12)


@given(SEEDS, st.integers(2, 6))
@settings(deadline=None, max_examples=20)
def test_a_planted_optimum_far_from_the_start_is_found(seed, domains):
    rng = np.random.default_rng(seed)
    optimum, start = rng.dirichlet(np.ones(domains), size=2)
    found = find(free(lambda weights_NK: ((weights_NK - optimum) ** 2).sum(axis=1)), start, parameters=DEFAULT)
    assert found.weights_K == pytest.approx(optimum, abs=0.02)


@given(SEEDS, st.integers(2, 6))
@settings(deadline=None, max_examples=20)
def test_a_linear_objective_is_followed_into_the_corner_of_the_box(seed, domains):
    rng = np.random.default_rng(seed)
    start, box = random_box(rng, domains)
    slope = rng.normal(size=domains)
    found = find(free(lambda weights_NK: weights_NK @ slope), start, box)
    corner = linprog(slope, A_eq=np.ones((1, domains)), b_eq=[1], bounds=np.stack(box, axis=1))
    assert found.value == pytest.approx(corner.fun, abs=0.01 * np.ptp(slope))
    assert np.all((found.weights_K >= box[0] - 1e-12) & (found.weights_K <= box[1] + 1e-12))
    assert found.weights_K.sum() == pytest.approx(1, abs=1e-12)


def test_the_start_is_never_lost():
    start = np.array([0.31, 0.29, 0.4])
    found = find(free(lambda weights_NK: np.where(np.all(weights_NK == start, axis=1), -1.0, 0.0)), start)
    assert np.array_equal(found.weights_K, start)
    assert found.value == -1


def test_the_centres_compete_too():
    optimum = np.full(8, 1 / 8)
    found = find(free(lambda weights_NK: ((weights_NK - optimum) ** 2).sum(axis=1)), np.eye(8)[0] * 0.9 + 0.0125)
    assert found.value == min(row["best"] for row in found.trace)
    assert found.value <= min(row["centre"] for row in found.trace)


def test_the_best_of_several_starts_is_the_first_centre():
    starts = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    found = find(free(lambda weights_NK: np.abs(weights_NK[:, 0] - 0.7)), starts)
    assert found.centres_RK[0].tolist() == [0.6, 0.4]


def test_a_domain_that_the_start_leaves_out_can_grow_where_the_box_lets_it():
    gain = free(lambda weights_NK: -weights_NK[:, 2])
    assert find(gain, [0.5, 0.5, 0.0], parameters=DEFAULT).weights_K[2] > 0.98
    closed = np.zeros(3), np.array([1.0, 1.0, 0.0])
    assert find(gain, [0.5, 0.5, 0.0], closed).weights_K[2] == 0


def test_allowed_mixtures_are_found_from_a_start_that_is_not():
    """Allowed is a corner of the simplex that no draw of the first round hits."""

    def evaluate(weights_NK):
        short_N = np.maximum(0.85 - weights_NK[:, 3], 0)
        return ((weights_NK - 0.25) ** 2).sum(axis=1), short_N

    found = find(evaluate, np.full(4, 0.25))
    assert found.excess == 0
    assert found.weights_K == pytest.approx([0.05, 0.05, 0.05, 0.85], abs=0.02)
    assert np.isnan(found.trace[0]["best"])
    known = [row for row in found.trace if not np.isnan(row["best"])]
    assert not any(np.isnan(row["centre"]) for row in known), "the mean of allowed ones, which are convex, is allowed"
    assert found.trace[-1]["best"] == found.value


def test_where_nothing_is_allowed_the_nearest_is_returned():
    found = find(lambda weights_NK: (np.zeros(len(weights_NK)), 1 + weights_NK[:, 0]), [0.5, 0.5])
    assert found.excess == pytest.approx(1, abs=1e-3)
    assert all(np.isnan(row["best"]) for row in found.trace)


def test_the_trace_goes_from_coarse_to_fine_and_its_best_only_falls():
    found = find(free(lambda weights_NK: weights_NK[:, 0] * weights_NK[:, 1] - weights_NK[:, 2]), np.full(3, 1 / 3))
    rows = found.trace
    assert [row["search_round"] for row in rows] == list(range(SHORT.rounds + 1))
    assert rows[1]["concentration"] == pytest.approx(SHORT.coarse)
    assert rows[-1]["concentration"] == pytest.approx(SHORT.fine)
    best = [row["best"] for row in rows]
    assert best == sorted(best, reverse=True)
    assert len(found.centres_RK) == len(rows)
    assert found.centres_RK.sum(axis=1) == pytest.approx(1)


def test_the_seed_decides_the_result():
    objective = free(lambda weights_NK: ((weights_NK - weights_NK[:, ::-1] ** 2) ** 2).sum(axis=1))
    first, again, other = (find(objective, np.full(5, 0.2), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.weights_K, again.weights_K)
    assert not np.array_equal(first.weights_K, other.weights_K)
