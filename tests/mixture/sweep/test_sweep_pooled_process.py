"""Processes of several targets that learn from each other."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from tikmix_pipeline.mixture.sweep.gaussian_process import MixtureGaussianProcess
from tikmix_pipeline.mixture.sweep.pooled_process import PooledGaussianProcesses

K, T = 8, 6


def table(rows, seed):
    """Targets of which only the same two of eight domains matter, each in its own proportion."""
    rng = np.random.default_rng(seed)
    weights_NK, part_T = rng.dirichlet(np.full(K, 0.7), size=rows), np.random.default_rng(1).uniform(0.2, 0.8, size=T)
    losses_NT = -np.log(weights_NK[:, :1] * part_T + weights_NK[:, 1:2] * (1 - part_T) + 0.02)
    return weights_NK, losses_NT + 0.02 * rng.normal(size=losses_NT.shape)


def test_few_rows_tell_more_of_targets_that_are_alike_together_than_one_by_one():
    together, alone = [], []
    others_MK, measured_MT = table(300, 99)
    for seed in range(4):
        weights_NK, losses_NT = table(24, seed)
        pooled_MT = PooledGaussianProcesses().fit(weights_NK, losses_NT).predict(others_MK)
        for t in range(T):
            single_M = MixtureGaussianProcess().fit(weights_NK, losses_NT[:, t]).predict(others_MK)
            together.append(spearmanr(pooled_MT[:, t], measured_MT[:, t]).statistic)
            alone.append(spearmanr(single_M, measured_MT[:, t]).statistic)
    assert np.mean(together) > np.mean(alone)


@pytest.mark.parametrize(("rows", "targets"), [(24, 1), (201, 3)])
def test_one_target_or_many_rows_are_fitted_one_by_one(rows, targets):
    weights_NK, losses_NT = table(rows, 0)
    pooled = PooledGaussianProcesses().fit(weights_NK, losses_NT[:, :targets])
    single = MixtureGaussianProcess().fit(weights_NK, losses_NT[:, 0])
    assert np.array_equal(pooled.predict(weights_NK)[:, 0], single.predict(weights_NK))


def test_a_target_that_never_moves_takes_no_part():
    weights_NK, losses_NT = table(24, 0)
    still_NT = np.concatenate([losses_NT[:, :2], np.full((24, 1), 3.0)], axis=1)
    found = PooledGaussianProcesses().fit(weights_NK, still_NT)
    without = PooledGaussianProcesses().fit(weights_NK, still_NT[:, :2])
    assert np.array_equal(found.predict(weights_NK)[:, :2], without.predict(weights_NK))
    assert np.array_equal(found.predict(weights_NK)[:, 2], np.full(24, 3.0))
