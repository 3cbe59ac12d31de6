import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.sweep.design import dirichlet, latin_hypercube
from tikmix_pipeline.parameters import OptimizeParameters

SEEDS = st.integers(0, 2**32 - 1)
CENTRE = np.array([0.4, 0.3, 0.2, 0.1])


def bounds_of(count, caps=None, **parameters):
    """Bounds on so many domains; `caps` are upper bounds by repetition."""
    caps = [math.inf] * count if caps is None else caps
    supplies = {f"domain{k}": Supply(cap * 1000) for k, cap in enumerate(caps)}
    return mixture_bounds(OptimizeParameters.model_validate({"max_epochs": 1, **parameters}), supplies, 1000)


def around(centre=CENTRE, bounds=None, *, count=32, low=0.5, high=2.0, seed=0):
    bounds = bounds or bounds_of(len(centre))
    return latin_hypercube(np.asarray(centre), count=count, low=low, high=high, bounds=bounds, seed=seed)


def by_dirichlet(prior=CENTRE, bounds=None, *, count=32, strengths=(0.1, 5.0), max_ratio=15.0, seed=0):
    return dirichlet(
        np.asarray(prior),
        count=count,
        min_strength=strengths[0],
        max_strength=strengths[1],
        max_ratio=max_ratio,
        bounds=bounds or bounds_of(len(prior)),
        seed=seed,
    )


def assert_sound(design, count):
    weights_NK = design.weights_NK
    assert len(weights_NK) == count
    assert weights_NK.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert np.all(weights_NK >= design.box[0] - 1e-12)
    assert np.all(weights_NK <= design.box[1] + 1e-12)
    distances = np.abs(weights_NK[:, None] - weights_NK[None]).sum(axis=2)
    assert distances[~np.eye(count, dtype=bool)].min() > 1e-5
    assert 0 < design.acceptance <= 1


@given(SEEDS, st.integers(2, 12))
@settings(deadline=None, max_examples=25)
def test_latin_hypercube_stays_in_its_intervals_and_under_the_caps(seed, domains):
    rng = np.random.default_rng(seed)
    centre = rng.dirichlet(np.full(domains, 2.0))
    caps = centre * rng.uniform(1.2, 3, size=domains)
    design = around(centre, bounds_of(domains, caps), count=16, seed=seed)
    assert_sound(design, 16)
    assert np.array_equal(design.weights_NK[0], centre)
    assert np.all(design.weights_NK <= np.minimum(2 * centre, caps) + 1e-12)
    assert np.all(design.weights_NK >= 0.5 * centre - 1e-12)


@given(SEEDS, st.integers(2, 12))
@settings(deadline=None, max_examples=25)
def test_dirichlet_stays_under_its_ratio_and_the_caps(seed, domains):
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.full(domains, 2.0))
    caps = np.minimum(1, prior * rng.uniform(2, 6, size=domains))
    design = by_dirichlet(prior, bounds_of(domains, caps), count=16, max_ratio=5, seed=seed)
    assert_sound(design, 16)
    assert np.array_equal(design.weights_NK[0], prior)
    assert np.all(design.weights_NK <= np.minimum(5 * prior, caps) + 1e-12)


@pytest.mark.parametrize("draw", [around, by_dirichlet])
def test_the_seed_decides_the_candidates(draw):
    first, again, other = draw(seed=3), draw(seed=3), draw(seed=4)
    assert np.array_equal(first.weights_NK, again.weights_NK)
    assert not np.array_equal(first.weights_NK[1:], other.weights_NK[1:])


@pytest.mark.parametrize("draw", [around, by_dirichlet])
def test_domains_without_weight_stay_without(draw):
    assert np.all(draw([0.5, 0.0, 0.3, 0.2, 0.0]).weights_NK[:, [1, 4]] == 0)


@pytest.mark.parametrize("draw", [around, by_dirichlet])
def test_a_domain_that_the_bounds_hold_at_one_weight_keeps_it(draw):
    bounds = bounds_of(4, bounds={"domain1": {"min": 0.25, "max": 0.25}})
    design = draw([0.35, 0.25, 0.25, 0.15], bounds)
    assert_sound(design, 32)
    assert np.all(design.weights_NK[:, 1] == 0.25)


@pytest.mark.parametrize("draw", [around, by_dirichlet])
def test_a_centre_outside_the_bounds_is_moved_inside(draw):
    bounds = bounds_of(4, [0.3, 1, 1, 1])
    design = draw(CENTRE, bounds)
    assert design.weights_NK[0] == pytest.approx(bounds.project(CENTRE))
    assert design.weights_NK[:, 0].max() <= 0.3


def test_rounding_takes_no_candidate_out_of_its_interval():
    """The intervals of rare domains are some ten steps of the last decimal wide, and end between two of them."""
    rare = np.random.default_rng(0).uniform(1e-5, 2e-5, size=10)
    assert_sound(around([0.4, 0.6 - rare.sum(), *rare], count=200), 200)


def test_the_hypercube_varies_each_domain_over_all_its_interval():
    design = around(count=400)
    ratios = design.weights_NK / CENTRE
    assert np.all(ratios[:, 1:].min(axis=0) < 0.6)
    assert np.all(ratios[:, 1:].max(axis=0) > 1.6)


def test_dirichlet_candidates_range_from_few_domains_to_nearly_the_prior():
    prior = np.full(10, 0.1)
    weights_NK = by_dirichlet(prior, count=300, max_ratio=10).weights_NK
    present_N = (weights_NK > 0).sum(axis=1)
    assert present_N.min() <= 3
    assert present_N.max() == 10
    assert np.all(weights_NK[weights_NK > 0] >= 1.9e-4)
    assert weights_NK.mean(axis=0) == pytest.approx(prior, abs=0.03)


def test_the_candidates_of_the_paper_are_sound():
    rng = np.random.default_rng(0)
    design = around(rng.dirichlet(np.full(26, 2.0)), count=256)
    assert_sound(design, 256)
    assert 0.05 < design.acceptance < 0.3


@pytest.mark.parametrize(
    ("design", "expected"),
    [
        ({"low": 1.0, "high": 1.0}, r"Of 4 domains, 0 have room to vary.*sweep\.low = 1 to sweep\.high = 1.*Lower"),
        (
            {"centre": [1.0, 0.0]},
            r"Of 2 domains, 1 has room to vary.*gives no weight to 'domain1', and multiples of zero",
        ),
        ({"low": 0.99999, "high": 1.00001}, r"the others hardly differ from these.*Lower sweep\.low"),
        ({"centre": np.full(26, 1 / 26), "low": 0.95, "high": 50.0}, r"is below 0\.03654 in .*Lower sweep\.low to"),
        (
            {"centre": [0.25, 0.25, 0.25, 0.25], "bounds": bounds_of(4, [0.25, 0.25, 0.25, 0.25])},
            r"which rejects most, is above 0\.25 in .*Raise optimize\.max_epochs to give it room",
        ),
        (
            {"centre": [0.25, 0.25, 0.25, 0.25], "bounds": bounds_of(4, min_weight=0.25)},
            r"which rejects most, is below 0\.25 in .*Lower optimize\.min_weight to give it room",
        ),
    ],
)
def test_intervals_that_are_too_tight_are_refused_with_what_to_widen(design, expected):
    with pytest.raises(TikmixError, match=expected):
        around(**design)


def refusal(draw, *arguments, **keywords):
    with pytest.raises(TikmixError) as caught:
        draw(*arguments, **keywords)
    return str(caught.value)


def test_a_corner_of_direct_names_the_domains_without_weight_and_what_does_help():
    said = refusal(around, [0.0, 1.0, 0.0])
    assert "D's mixture gives no weight to 'domain0', 'domain2'" in said
    assert all(name in said for name in ("sweep.design to dirichlet", "optimize.min_weight", "optimize.entropy"))
    assert "Lower sweep.low" not in said, "it would not help"


def test_a_corner_of_the_prior_names_the_domains_without_weight_and_what_does_help():
    said = refusal(by_dirichlet, [0.0, 1.0, 0.0])
    assert "The prior gives no weight to 'domain0', 'domain2'" in said
    assert all(name in said for name in ("set tikmix.prior", "sweep.max_ratio so that"))
    assert "sweep.design" not in said


def test_where_two_domains_have_weight_wider_intervals_are_the_first_thing_to_try():
    said = refusal(around, [0.6, 0.4, 0.0], low=1.0, high=1.0)
    assert "Lower sweep.low, raise sweep.high" in said
    assert "no weight to 'domain2'" in said


def test_a_domain_that_the_bounds_leave_out_is_no_fault_of_the_mixture():
    said = refusal(around, [1.0, 0.0], bounds_of(2, bounds={"domain1": {"max": 0.0}}))
    assert "no weight" not in said
    assert "optimize.bounds" in said


def test_caps_too_tight_for_dirichlet_draws_are_refused_with_the_domain():
    prior = np.full(26, 1 / 26)
    with pytest.raises(TikmixError, match=r"the domain 'domain\d+', which rejects most.*Raise sweep\.max_ratio"):
        by_dirichlet(prior, max_ratio=1.05)


def test_candidates_that_hardly_differ_are_said_to():
    assert around().notes == ()
    (note,) = around(low=0.995, high=1.005).notes
    assert "hardly differ" in note
    assert "Lower sweep.low, raise sweep.high" in note
