"""A surrogate that knows nothing decides nothing."""

import numpy as np
import pytest

from tikmix_pipeline.mixture.sweep.known import why_nothing_is_known
from tikmix_pipeline.mixture.sweep.quality import judge, matching_domains
from tikmix_pipeline.mixture.sweep.responses import Responses

DOMAINS = ("web", "code", "books")


def asked(kind, response, targets=("qa", "sums"), count=24, seed=0):
    weights_NK = np.random.default_rng([1, seed]).dirichlet(np.ones(len(DOMAINS)), size=count)
    response_NT = response(weights_NK, np.random.default_rng([2, seed]))
    responses = Responses(tuple(map(str, range(count))), DOMAINS, targets, weights_NK, response_NT)
    quality = judge(responses, [kind], folds=5, seed=0, matches=matching_domains(DOMAINS, targets))
    import pandas as pd

    return why_nothing_is_known(quality.rows, pd.DataFrame(quality.prediction_rows()), kind, seed=0)


def noise(weights_NK, rng):
    return rng.normal(size=(len(weights_NK), 2))


def told(weights_NK, rng):
    steep = -np.log(weights_NK[:, :2] + 0.7 * weights_NK[:, 1::-1] + 0.05)
    return steep + 0.1 * rng.normal(size=(len(weights_NK), 2))


@pytest.mark.parametrize("kind", ["ridge", "gp", "linear", "xgboost"])
def test_scores_at_random_tell_nothing_whatever_learns_from_them(kind):
    found = [asked(kind, noise, seed=seed) for seed in range(10 if kind != "xgboost" else 3)]
    assert all(reason is not None for reason in found)
    assert any("no better than chance" in reason or "the same for all mixtures" in reason for reason in found)


@pytest.mark.parametrize("kind", ["ridge", "gp"])
def test_scores_that_follow_the_mixture_do(kind):
    assert [asked(kind, told, seed=seed) for seed in range(4)] == [None] * 4


def test_a_rule_that_needs_no_run_and_ranks_as_well_is_named():
    found = asked("linear", lambda weights_NK, _: -np.log(weights_NK[:, :2] + 1e-3), targets=("web", "code"))
    assert "no better than the rule 'matching domain' (1.00)" in found
