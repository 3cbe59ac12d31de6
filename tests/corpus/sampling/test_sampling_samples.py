import numpy as np
import pytest

from tikmix_pipeline.corpus.sampling.samples import Reservoir

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
