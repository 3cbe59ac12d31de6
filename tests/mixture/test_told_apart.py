"""Where domains do not differ by more than their chunks do, nothing is decided."""

import numpy as np
import pandas as pd
import pytest
from response_examples import decide, names, random_problem, table

from tikmix_pipeline.mixture.told_apart import LEVEL, chance_of_differing, why_nothing_is_told

TASKS, DOMAINS, CHUNKS = names("t", 2), names("d", 5), 4
SHARES = dict.fromkeys(TASKS, 0.5)


def parts(difference, noise, seed, common=0.0):
    """Return chunks of domains that differ by so much, as a measurement leaves them."""
    rng = np.random.default_rng(seed)
    mean_TK = difference * rng.normal(size=(len(TASKS), len(DOMAINS)))
    values_TKL = mean_TK[..., None] + noise * rng.normal(size=(*mean_TK.shape, CHUNKS)) + common
    rows = [
        {"task": task, "domain": domain, "part": part, "tokens": 64, "influence": values_TKL[t, k, part]}
        for t, task in enumerate(TASKS)
        for k, domain in enumerate(DOMAINS)
        for part in range(CHUNKS)
    ]
    return pd.DataFrame(rows)


def test_domains_that_are_all_alike_are_told_apart_as_often_as_chance_has_it():
    chances = [chance_of_differing(parts(0.0, 1.0, seed, common=3.0), SHARES) for seed in range(400)]
    assert np.mean(np.array(chances) < LEVEL) == pytest.approx(LEVEL, abs=0.03)
    assert np.median(chances) == pytest.approx(0.5, abs=0.1)


def test_domains_that_differ_by_more_than_their_noise_are_told_apart():
    assert all(why_nothing_is_told([parts(1.0, 0.3, seed)], SHARES) is None for seed in range(20))


def test_one_round_that_tells_is_enough_and_tasks_that_do_not_count_tell_nothing():
    alike, apart = parts(0.0, 1.0, 3), parts(1.0, 0.1, 0)
    assert why_nothing_is_told([alike], SHARES) is not None
    assert why_nothing_is_told([apart, alike], SHARES) is None
    only_first = apart.assign(influence=np.where(apart["task"] == "t0", apart["influence"], 0.0))
    assert why_nothing_is_told([only_first], {"t0": 0.0, "t1": 1.0}) is not None


def test_domains_without_noise_are_told_apart_by_any_difference_and_by_none():
    assert chance_of_differing(parts(1.0, 0.0, 0), SHARES) == 0.0
    assert chance_of_differing(parts(0.0, 0.0, 0, common=1.0), SHARES) == 1.0


def test_where_nothing_is_told_the_current_mixture_is_kept_and_it_is_said():
    influence, products, _ = random_problem(0, len(TASKS), len(DOMAINS))
    tables = [table(influence)]
    decided = decide(tables, [products], parts=[parts(1.0, 0.1, 0)])
    kept = decide(tables, [products], parts=[parts(0.0, 1.0, 3)])
    assert np.abs(decided.weights_K - 1 / len(DOMAINS)).max() > 0.05
    np.testing.assert_allclose(kept.weights_K, 1 / len(DOMAINS), atol=1e-8)
    assert "So nothing is decided, and the current mixture is kept." in kept.notes[0]
    assert kept.expected_gain_T == pytest.approx(0, abs=1e-6)
