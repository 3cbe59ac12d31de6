import numpy as np
import pytest

from tikmix_pipeline.corpus.sampling.draws import ENOUGH_DRAWS, Draw, draw_shards

GIGABYTE = 10**9


def drawn(sizes: list[int], limit: float, budget: float, seed: int = 0, **changes: list[float]) -> list[Draw]:
    generator = np.random.default_rng(seed)
    return draw_shards(sizes, limit_bytes=limit, budget_bytes=budget, generator=generator, **changes)


def test_equal_shards_are_drawn_until_they_are_enough_or_the_budget_is_spent():
    sizes = [100] * 198
    assert len(drawn(sizes, 10, 1e9)) == ENOUGH_DRAWS
    # in bundles that have 16 times the limit together
    assert len(drawn(sizes, 500, 1e9)) == 3 * ENOUGH_DRAWS
    assert len(drawn(sizes, 500, 750)) == 7
    assert len(drawn(sizes, 500, 7)) == 1


def test_all_of_few_or_little_are_read_and_weigh_the_same():
    for sizes in ([3, 4], [0, 0], [1] * 50, []):
        found = drawn(sizes, 99, 9e9)
        assert sorted(draw.shard for draw in found) == list(range(len(sizes)))
        assert {draw.weight for draw in found} <= {1.0}


@pytest.mark.parametrize(
    ("sizes", "share"),
    [
        ([GIGABYTE, 3_500_000_000], 0.778),
        (10 * [100_000_000] + [3_900_000_000], 0.796),
        (400 * [10_000_000] + [4_000_000_000], 0.5),
        (20_000 * [200_000] + 2 * [1_500_000_000], 0.214),
    ],
)
def test_every_byte_weighs_the_same_on_average_and_the_budget_is_kept(sizes: list[int], share: float):
    seeds = 600 if len(sizes) < 20 else 60 if len(sizes) < 1000 else 8
    weights, reads = np.zeros(len(sizes)), []
    for seed in range(seeds):
        found = drawn(sizes, 8e6, 4 * GIGABYTE, seed)
        weights[[draw.shard for draw in found]] += [draw.weight / seeds for draw in found]
        reads.append(sum(sizes[draw.shard] for draw in found))
    weighed = weights * sizes / sum(sizes)
    assert weighed.sum() == pytest.approx(1, rel=0.01)
    assert weighed[-1] == pytest.approx(share, abs=0.03)
    assert max(reads) <= max(4 * GIGABYTE, 1.25 * max(sizes))


@pytest.mark.parametrize("largest", [4 * GIGABYTE, 5 * GIGABYTE])
def test_a_shard_as_large_as_the_budget_does_not_keep_others_from_being_read(largest: int):
    sizes = [10_000_000] * 1000 + [largest]
    found = drawn(sizes, 8e6, 4 * GIGABYTE)
    assert sum(sizes[draw.shard] for draw in found) <= 1.25 * largest
    assert len(found) > 10


def test_bundles_of_tiny_shards_could_give_their_share_of_the_limit():
    sizes = [10_000] * 100_000 + [GIGABYTE]
    found = drawn(sizes, 8e6, 4 * GIGABYTE)
    assert sum(sizes[draw.shard] for draw in found if draw.shard < 100_000) >= 8e6


def test_weights_of_an_earlier_stage_count():
    """Shards of a file that stands for three are drawn thrice as often, and what they stand for is not forgotten."""
    sizes, weights = [10] * 100, [3.0] * 50 + [1.0] * 50
    counts, means = np.zeros(100), np.zeros(100)
    for seed in range(300):
        for draw in drawn(sizes, 5, 200, seed, weights=weights):
            counts[draw.shard] += 1
            means[draw.shard] += draw.weight / 300
    assert counts[:50].mean() / counts[50:].mean() == pytest.approx(3, rel=0.05)
    assert [means[:50].mean(), means[50:].mean()] == pytest.approx([3, 1], rel=0.05)
