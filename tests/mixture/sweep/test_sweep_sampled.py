import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.mixture.influence_matrix import averaged_influence
from tikmix_pipeline.mixture.sweep.responses import run_table
from tikmix_pipeline.mixture.sweep.sampled import (
    exact_beside_sampled,
    mean_correlation,
    sampled_influence,
    sampled_responses,
)
from tikmix_pipeline.parameters import TikmixParameters

T, K, L = 2, 3, 4
GENERATOR = np.random.default_rng(0)
INFLUENCE = GENERATOR.normal(1.0, 0.5, size=(T, K, L))
TOKENS = np.full((K, L), 100.0)
WEIGHTS = GENERATOR.dirichlet(np.ones(K), size=50)
ADDITIVE = WEIGHTS @ INFLUENCE.mean(axis=2).T


def sampled(weights: np.ndarray, influence: np.ndarray = INFLUENCE, tokens: int | None = None, seed: int = 0):
    return sampled_influence(weights, [influence], [TOKENS], tokens=tokens, factors_RT=np.ones((1, T)), seed=seed)


def test_sampled_influence_is_additive_influence_where_all_parts_of_a_domain_are_alike():
    alike = np.repeat(INFLUENCE[:, :, :1], L, axis=2)
    assert sampled(WEIGHTS, alike) == pytest.approx(WEIGHTS @ alike[:, :, 0].T)


def test_sampled_influence_is_unbiased():
    draws = np.stack([sampled(WEIGHTS, seed=seed) for seed in range(400)])
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - ADDITIVE) < 5 * error)


def test_larger_samples_are_less_noisy():
    errors = [np.abs(sampled(WEIGHTS, tokens=tokens) - ADDITIVE).mean() for tokens in (1_000, 10_000, 100_000)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_sample_has_the_variance_of_drawing_its_parts():
    """The oracle: draw every part of one domain one by one."""
    weights, count = np.array([[1.0, 0.0, 0.0]]), 12
    draws = np.array([sampled(weights, tokens=count * 100, seed=seed)[0, 0] for seed in range(3000)])
    one_by_one = GENERATOR.choice(INFLUENCE[0, 0], size=(3000, count)).mean(axis=1)
    assert draws.std() == pytest.approx(one_by_one.std(), rel=0.1)


def test_a_domain_without_weight_has_no_say():
    weights = np.array([[0.5, 0.5, 0.0]])
    changed = INFLUENCE.copy()
    changed[:, 2] = 1e9
    assert sampled(weights, changed) == pytest.approx(sampled(weights))


def test_rounds_count_alike_in_the_units_they_are_given():
    factors = np.array([[2.0, 3.0], [1.0, 1.0]])
    alike = np.repeat(INFLUENCE[:, :, :1], L, axis=2)
    both = sampled_influence(WEIGHTS, [alike, 2 * alike], [TOKENS, TOKENS], tokens=None, factors_RT=factors, seed=0)
    assert both == pytest.approx(WEIGHTS @ alike[:, :, 0].T * np.array([2.0, 2.5]))


def test_correlation_is_that_of_numpy_averaged_over_tasks():
    noisy = ADDITIVE + GENERATOR.normal(size=ADDITIVE.shape)
    expected = np.mean([np.corrcoef(ADDITIVE[:, t], noisy[:, t])[0, 1] for t in range(T)])
    assert mean_correlation(ADDITIVE, noisy) == pytest.approx(expected)
    assert np.isnan(mean_correlation(ADDITIVE, np.ones_like(ADDITIVE)))


UNEQUAL = np.array([100.0, 100.0, 200.0, 400.0]) * np.ones((K, 1))


def test_parts_of_unequal_size_count_by_their_tokens():
    """As of `influence.tokens: auto`, which measures 1, 1, 2, 4, ... windows."""
    by_tokens = WEIGHTS @ (INFLUENCE * UNEQUAL / UNEQUAL[0].sum()).sum(axis=2).T
    draws = np.stack(
        [
            sampled_influence(WEIGHTS, [INFLUENCE], [UNEQUAL], tokens=None, factors_RT=np.ones((1, T)), seed=seed)
            for seed in range(400)
        ]
    )
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - by_tokens) < 5 * error)
    assert np.abs(by_tokens - ADDITIVE).max() > 5 * error.max(), "the plain mean of the parts is something else"


def test_a_sample_of_unequal_parts_varies_as_so_many_independent_tokens():
    """The oracle: the influence of a part is the mean of its tokens, and so is the sample's of its own."""
    generator = np.random.default_rng(3)
    tokens, size = np.array([[100.0, 100.0, 200.0, 400.0]]), 800
    found, expected = [], 1 / np.sqrt(size)
    for seed in range(2000):
        influence = generator.normal(size=(1, 1, 4)) / np.sqrt(tokens)
        mean = (influence[0, 0] * tokens[0]).sum() / tokens.sum()
        whole = np.ones((1, 1))
        found.append(
            sampled_influence(whole, [influence], [tokens], tokens=size, factors_RT=whole, seed=seed)[0, 0] - mean
        )
    # four parts, around their own mean: a little less than as many tokens drawn anew
    assert np.std(found) == pytest.approx(expected * np.sqrt(3 / 4), rel=0.1)


def table_of_chunks(influence=INFLUENCE, tokens=TOKENS):
    return pd.DataFrame(
        [
            {
                "task": f"t{t}",
                "domain": f"d{k}",
                "part": part,
                "influence": influence[t, k, part],
                "tokens": tokens[k, part],
            }
            for part in range(L)
            for k in reversed(range(K))
            for t in range(T)
        ]
    )


def test_tables_of_chunks_are_sampled_as_their_arrays_are():
    ratios = run_table({f"c{n}": row for n, row in enumerate(WEIGHTS.tolist())}, ["d0", "d1", "d2"])
    chunks = [table_of_chunks(3 * INFLUENCE), table_of_chunks()]
    last = sampled_responses(ratios, chunks, tokens=None, averaging=TikmixParameters(memory="none"), seed=1)
    assert list(last.columns) == ["run", "t0", "t1"]
    assert last[["t0", "t1"]].to_numpy() == pytest.approx(-sampled(WEIGHTS, seed=1))
    both = sampled_responses(ratios, chunks, tokens=None, averaging=TikmixParameters(), seed=1)
    assert both[["t0", "t1"]].to_numpy() == pytest.approx(last[["t0", "t1"]].to_numpy(), rel=0.5)


def test_m_averages_rounds_as_d_does():
    """With all of every chunk in the draw, what is left is the mean of the rounds, by their precision."""
    domains, tasks = ["d0", "d1", "d2"], ["t0", "t1"]
    corners = run_table({f"c{k}": row for k, row in enumerate(np.eye(K).tolist())}, domains)
    alike = np.repeat(INFLUENCE.mean(axis=2, keepdims=True), L, axis=2)
    other = alike[:, ::-1]
    chunks = [table_of_chunks(3 * other), table_of_chunks(alike)]
    influences = [
        table.groupby(["task", "domain"], as_index=False)["influence"].mean().assign(stderr=error)
        for table, error in zip(chunks, (6.0, 0.5), strict=True)
    ]
    found = sampled_responses(corners, chunks, tokens=None, averaging=TikmixParameters(), seed=1, influences=influences)
    decided_tasks, expected_TK = averaged_influence(influences, domains, TikmixParameters())
    assert decided_tasks == tasks
    assert found[tasks].to_numpy() == pytest.approx(-expected_TK.T)


def test_exact_influence_stands_beside_the_draws_of_the_same_candidates():
    ratios = run_table({f"c{n}": row for n, row in enumerate(WEIGHTS.tolist())}, ["d0", "d1", "d2"])
    exact = ADDITIVE[:5] + 0.1
    table = exact_beside_sampled(["t0", "t1"], exact, 0 * exact, ratios, table_of_chunks(), tokens=None, seed=1)
    assert table["run"].tolist() == [f"c{n}" for n in range(5) for _ in range(2)]
    assert table["additive"].to_numpy().reshape(5, 2) == pytest.approx(ADDITIVE[:5])
    assert table["sampled"].to_numpy().reshape(5, 2) == pytest.approx(sampled(WEIGHTS, seed=1)[:5])
