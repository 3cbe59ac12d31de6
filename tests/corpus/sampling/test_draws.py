from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tikmix_pipeline.corpus.sampling import draws
from tikmix_pipeline.corpus.sampling.draws import ENOUGH_DRAWS, Draw, Reservoir, draw_shards, random_places, shuffled

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


def test_places_tile_the_files_in_random_order(tmp_path: Path):
    paths = [tmp_path / name for name in "abc"]
    for path, size in zip(paths, (10, 0, 25), strict=True):
        path.write_bytes(bytes(size))
    drawn = random_places(paths, [4, 4, 25], generator=np.random.default_rng(0))
    found = [(place.path.name, place.start, place.end) for place in drawn]
    assert sorted(found) == [("a", 0, 4), ("a", 4, 8), ("a", 8, 10), ("c", 0, 25)]
    assert not list(random_places([paths[1]], [4], generator=np.random.default_rng(0)))


def test_of_a_file_of_a_terabyte_places_are_made_as_they_are_asked_for(tmp_path: Path):
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(10**12)
    drawn = list(islice(random_places([path], [4096], generator=np.random.default_rng(0)), 5000))
    starts = [place.start for place in drawn]
    assert len(set(starts)) == len(starts)
    assert np.histogram(starts, 10, (0, 1e12))[0] == pytest.approx(10 * [500], abs=100)


@pytest.mark.parametrize("count", [0, 1, 9, 100_000])
def test_every_number_comes_once(count: int):
    numbers = list(shuffled(count, np.random.default_rng(0)))
    assert sorted(numbers) == list(range(count))
    assert count < 9 or numbers != sorted(numbers)


def test_every_number_is_equally_likely_at_every_position(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(draws, "_SHUFFLED_AT_ONCE", 4)
    seeds = 3000
    positions = np.zeros((9, 9))
    for seed in range(seeds):
        numbers = list(shuffled(9, np.random.default_rng(seed)))
        positions[range(9), numbers] += 1
    # five standard deviations of a binomial
    assert positions == pytest.approx(np.full((9, 9), seeds / 9), abs=5 * np.sqrt(seeds / 9))


SIZES = [10, 50, 20, 90, 30] * 80


def filled(limit: float, seed: int, texts: list[str]) -> tuple[Reservoir, list[int]]:
    """Offer all texts; return the reservoir and the rows it asked for."""
    reservoir = Reservoir(limit, np.random.default_rng(seed))
    asked: list[int] = []
    for row, text in enumerate(texts):
        if not reservoir.passes_over():
            asked.append(row)
            reservoir.add(text, 2 * len(text))
    return reservoir, asked


def test_every_unit_is_equally_likely_and_the_limit_is_held():
    texts = [f"{row:04d}".ljust(size, ".") for row, size in enumerate(SIZES)]
    limit, seeds = 1600, 500
    counts = np.zeros(len(texts))
    for seed in range(seeds):
        kept = filled(limit, seed, texts)[0].texts
        assert limit - 90 < sum(map(len, kept)) <= limit
        assert len(kept) == len(set(kept))
        counts[[int(text[:4]) for text in kept]] += 1
    expected = seeds * limit / sum(SIZES)
    # by thirds of the stream and by length; a long unit at the limit does not fit more often than a short one
    thirds = [third.mean() for third in np.array_split(counts, 3)]
    assert thirds == pytest.approx(3 * [expected], rel=0.05)
    assert [counts[kind::5].mean() for kind in range(5)] == pytest.approx(5 * [expected], rel=0.08)
    chi_square = ((counts - expected) ** 2 / (expected * (1 - limit / sum(SIZES)))).sum()
    # four standard deviations of a chi-square of so many degrees of freedom
    assert abs(chi_square - len(texts)) < 4 * np.sqrt(2 * len(texts))


def test_few_units_are_looked_at():
    texts = ["x" * 10] * 20_000
    reservoir, asked = filled(1000, 0, texts)
    assert len(reservoir.texts) == 100
    assert len(asked) < 2 * 100 * (1 + np.log(200))


def test_the_share_of_text_is_that_of_the_whole_stream_though_it_changes_on_the_way():
    shares = []
    for seed in range(20):
        reservoir = Reservoir(3000, np.random.default_rng(seed))
        for row in range(4000):
            if not reservoir.passes_over():
                reservoir.add("x" * 30, 40 if row < 2000 else 240)
        shares.append(reservoir.text_share)
    assert np.mean(shares) == pytest.approx(30 / 140, rel=0.05)


def test_blank_units_are_not_held_but_count():
    reservoir = Reservoir(100, np.random.default_rng(0))
    for text in ["", " \n", "word", "  "]:
        assert not reservoir.passes_over()
        reservoir.add(text, 8)
    assert reservoir.texts == ["word"]
    assert reservoir.text_share == 8 / 32


def test_units_that_stand_for_several_are_as_many_times_as_likely():
    """A stream in three parts of weight 1, 4 and 2, the middle one with half as much text per raw byte."""
    seeds, weights = 150, (1.0, 4.0, 2.0)
    counts, shares = np.zeros(3), []
    for seed in range(seeds):
        reservoir = Reservoir(400, np.random.default_rng(seed))
        for part, weight in enumerate(weights):
            reservoir.weight = weight
            for _ in range(300):
                if not reservoir.passes_over():
                    reservoir.add(str(part) * 10, 40 if part == 1 else 20)
        for text in reservoir.texts:
            counts[int(text[0])] += 1
        shares.append(reservoir.text_share)
    assert counts / counts.sum() == pytest.approx(np.array(weights) / 7, rel=0.05)
    assert np.mean(shares) == pytest.approx((10 + 40 + 20) / (20 + 160 + 40), rel=0.05)
