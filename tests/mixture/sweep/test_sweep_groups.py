"""TiKMiX-M stays inside groups of domains and keeps pins."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog

from tests.mixture.sweep.solve_examples import WHOLE, decide, direct_decision
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds, mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.simplex import project
from tikmix_pipeline.mixture.sweep.choose import covered_box, table_bounds
from tikmix_pipeline.mixture.sweep.design import dirichlet, latin_hypercube
from tikmix_pipeline.mixture.sweep.responses import Responses
from tikmix_pipeline.mixture.sweep.search import search
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.parameters.sweep import SearchParameters

CENTRE = np.array([0.4, 0.3, 0.2, 0.1])
LOOSE = {"web": {"domains": ["d0", "d1"], "min": 0.55, "max": 0.65}}
FIXED = {"web": {"domains": ["d0", "d1"], "min": 0.6, "max": 0.6}, "other": {"domains": ["d1", "d2"], "max": 0.55}}
ROUNDED = 4e-6


def bounds_of(**given):
    supplies = {f"d{k}": Supply(math.inf) for k in range(4)}
    return mixture_bounds(OptimizeParameters.model_validate(given), supplies, 1000)


@pytest.mark.parametrize("given", [{"groups": LOOSE}, {"groups": FIXED}, {"groups": LOOSE, "pinned": {"d3": 0.15}}])
@pytest.mark.parametrize("design", ["latin_hypercube", "dirichlet"])
def test_candidates_stay_inside_groups_and_keep_pins(given, design):
    bounds = bounds_of(**given)
    if design == "latin_hypercube":
        found = latin_hypercube(CENTRE, count=24, low=0.5, high=2.0, bounds=bounds, seed=0)
    else:
        found = dirichlet(CENTRE, count=24, min_strength=0.3, max_strength=5.0, max_ratio=15.0, bounds=bounds, seed=0)
    assert len(found.weights_NK) == 24
    assert bounds.halfspaces().shortfall(found.weights_NK).max() <= ROUNDED
    assert np.all((found.weights_NK >= found.box[0] - 1e-12) & (found.weights_NK <= found.box[1] + 1e-12))
    if "pinned" in given:
        assert found.weights_NK[:, 3] == pytest.approx(np.full(24, 0.15), abs=ROUNDED)


def test_the_search_follows_a_slope_to_where_the_groups_end():
    bounds = bounds_of(groups=FIXED)
    halfspaces, slope = bounds.halfspaces(), np.array([0.3, -1.0, 0.2, 0.4])
    visited = []

    def evaluate(weights_NK):
        visited.append(weights_NK)
        return weights_NK @ slope, np.zeros(len(weights_NK))

    found = search(
        evaluate,
        CENTRE[::-1],
        box=bounds.box(),
        groups=halfspaces,
        parameters=SearchParameters(rounds=8, samples=200, top=8),
        seed=0,
    )
    best = linprog(slope, -halfspaces.rows_GK, -halfspaces.least_G, np.ones((1, 4)), [1], bounds=[(0, 1)] * 4)
    assert found.value == pytest.approx(best.fun, abs=0.02)
    assert halfspaces.shortfall(np.concatenate(visited)).max() <= 1e-9


def test_projection_of_many_rows_is_that_of_each():
    bounds = bounds_of(groups=FIXED, max_weight=0.5)
    rows = np.random.default_rng(0).dirichlet(np.full(4, 0.5), size=30)
    projected = project(rows, bounds.box(), bounds.halfspaces())
    assert projected == pytest.approx(np.stack([bounds.project(row) for row in rows]), abs=1e-9)


def test_the_decision_of_a_surrogate_is_inside_groups():
    parameters = OptimizeParameters.model_validate(
        {"method": "paper", "groups": {"a": {"domains": ["books", "web"], "max": 0.35}}}
    )
    direct = direct_decision(parameters)
    groups = mixture_bounds(parameters, dict.fromkeys(direct.domains, Supply(math.inf)), 1000).halfspaces()
    found = decide(parameters=parameters, direct=direct.to_record("direct", 1), box=WHOLE, groups=groups)
    assert groups.shortfall(found.search.weights_K[None])[0] <= 1e-9
    assert groups.shortfall(found.weights_K[None])[0] <= 1e-8


def responses_of(weights_NK):
    count = len(weights_NK)
    return Responses(tuple(map(str, range(count))), ("d0", "d1", "d2", "d3"), ("t",), weights_NK, np.zeros((count, 1)))


def test_what_tables_cover_has_to_leave_room_in_the_groups():
    responses = responses_of(np.random.default_rng(0).dirichlet(CENTRE * 100, size=20))
    far = bounds_of(groups={"rare": {"domains": ["d2", "d3"], "min": 0.9}})
    with pytest.raises(TikmixError, match="groups, pinned"):
        covered_box(responses, far)
    assert covered_box(responses, Bounds.simplex(responses.domains))[0].sum() < 1


def test_tables_pin_to_the_prior_or_say_that_there_is_none():
    responses, parameters = responses_of(CENTRE[None]), OptimizeParameters(method="paper", pinned={"d1": "current"})
    assert table_bounds(parameters, responses, CENTRE).lower[1].weight == 0.3
    with pytest.raises(TikmixError, match="their prior is not known"):
        table_bounds(parameters, responses, None)
