from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tikmix_pipeline.corpus.sampling import places
from tikmix_pipeline.corpus.sampling.places import random_places, shuffled


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
    monkeypatch.setattr(places, "_SHUFFLED_AT_ONCE", 4)
    seeds = 3000
    positions = np.zeros((9, 9))
    for seed in range(seeds):
        numbers = list(shuffled(9, np.random.default_rng(seed)))
        positions[range(9), numbers] += 1
    # five standard deviations of a binomial
    assert positions == pytest.approx(np.full((9, 9), seeds / 9), abs=5 * np.sqrt(seeds / 9))
