import itertools

import numpy as np
import pytest

from tikmix_pipeline.distributed.process_group import share_out


def loads(costs: list[float], owners: list[int] | tuple[int, ...], count: int) -> np.ndarray:
    return np.bincount(owners, weights=costs, minlength=count)


@pytest.mark.parametrize("seed", range(5))
def test_busiest_has_at_most_a_third_more_than_in_the_best_of_all_ways(seed):
    costs = np.random.default_rng(seed).integers(1, 30, 8).tolist()
    best = min(loads(costs, owners, 3).max() for owners in itertools.product(range(3), repeat=8))
    assert loads(costs, share_out(costs, 3), 3).max() <= 4 / 3 * best


def test_one_process_has_all_and_some_of_many_have_nothing():
    assert share_out([3.0, 1.0], 1) == [0, 0]
    assert sorted(share_out([3.0, 1.0], 4)) == [0, 1]
    assert share_out([], 2) == []
