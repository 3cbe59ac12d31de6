import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.mixture.least_gains import LeastGains


def random_gains(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(4, 4))
    reference = rng.dirichlet(np.ones(4))
    return rng, LeastGains(rng.normal(size=(3, 4)), reference, rng.uniform(size=3), rng.uniform(size=3), root @ root.T)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_every_mixture_within_the_constraints_is_within_their_tangents(seed):
    rng, gains = random_gains(seed)
    at = rng.dirichlet(np.ones(4))
    tangent = gains.tangent(at)
    for weights in rng.dirichlet(np.ones(4), size=30):
        room = gains.at(weights) - gains.least()
        assert np.all(tangent.rows_GK @ weights - tangent.least_G >= room - 1e-9)
    np.testing.assert_allclose(tangent.rows_GK @ at - tangent.least_G, gains.at(at) - gains.least(), atol=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_a_row_less_its_mean_and_scaled_asks_the_same_of_a_mixture(seed):
    rng, gains = random_gains(seed)
    scaled = gains.scaled(gains.rows_CK.mean(axis=1), np.array([2.0, 5.0, 0.1]))
    weights = rng.dirichlet(np.ones(4))
    room, scaled_room = (one.at(weights) - one.least() for one in (gains, scaled))
    np.testing.assert_allclose(scaled_room * [2.0, 5.0, 0.1], room, atol=1e-9)


def test_the_reference_is_within_them():
    _, gains = random_gains(0)
    assert np.all(gains.at(gains.reference_K) >= gains.least())
