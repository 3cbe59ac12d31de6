from pathlib import Path

import numpy as np

from tikmix_pipeline.corpus.sampling.places import random_places, random_rows


def test_places_tile_the_files_in_random_order(tmp_path: Path):
    paths = [tmp_path / name for name in "abc"]
    for path, size in zip(paths, (10, 0, 25), strict=True):
        path.write_bytes(bytes(size))
    places = list(random_places(paths, [4, 4, 25], limit_bytes=np.inf, generator=np.random.default_rng(0)))
    found = [(place.path.name, place.start, place.end) for place in places]
    assert sorted(found) == [("a", 0, 4), ("a", 4, 8), ("a", 8, 10), ("c", 0, 25)]
    assert not list(random_places([paths[1]], [4], limit_bytes=9, generator=np.random.default_rng(0)))


def test_of_a_file_of_a_terabyte_few_places_are_made(tmp_path: Path):
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(10**12)
    places = list(random_places([path], [4096], limit_bytes=1e5, generator=np.random.default_rng(0)))
    assert len(places) < 1000
    assert len({place.start for place in places}) == len(places)
    assert 0.4e12 < np.mean([place.start for place in places]) < 0.6e12


def test_one_tiny_file_does_not_make_places_of_all_others(tmp_path: Path):
    (tmp_path / "tiny").write_bytes(b"x")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(10**11)
    paths = [tmp_path / "large", tmp_path / "tiny"]
    places = random_places(paths, [4096, 1], limit_bytes=1e6, generator=np.random.default_rng(0))
    assert len(list(places)) < 5000


def test_rows_come_once_each():
    rows = list(random_rows(100_000, limit_bytes=64, generator=np.random.default_rng(0)))
    assert len(rows) == len(set(rows)) == 1025
    assert sorted(random_rows(9, limit_bytes=np.inf, generator=np.random.default_rng(0))) == list(range(9))
