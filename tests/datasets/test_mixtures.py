from pathlib import Path

import pandas as pd

from tikmix_pipeline.datasets import MixtureRowsDataset
from tikmix_pipeline.store.provenance import Recipe


def rows(number: int, weight: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "round": number,
            "strategy": "direct",
            "domain": ["code", "web"],
            "weight": [weight, 1 - weight],
            "epochs": [0.1, 0.2],
            "tokens": [10, 20],
        }
    )


def save(path: Path, number: int, weight: float) -> MixtureRowsDataset:
    dataset = MixtureRowsDataset(filepath=str(path), round=str(number))
    dataset.expected = Recipe(step="s", code="c", parameters={"weight": weight}, inputs={})
    dataset.save(rows(number, weight))
    return dataset


def rounds_in(path: Path) -> list[int]:
    return sorted(pd.read_parquet(path)["round"].unique().tolist())


def test_each_round_appends_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    for number in range(3):
        save(path, number, 0.5)
    assert rounds_in(path) == [0, 1, 2]
    assert list(pd.read_parquet(path).columns) == ["round", "strategy", "domain", "weight", "epochs", "tokens"]


def test_changed_round_drops_the_rounds_decided_from_it(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    for number in range(3):
        save(path, number, 0.5)
    save(path, 1, 0.75)
    assert rounds_in(path) == [0, 1]


def test_round_written_again_unchanged_keeps_later_rounds(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    for number in range(3):
        save(path, number, 0.5)
    save(path, 0, 0.5)
    assert rounds_in(path) == [0, 1, 2]


def test_rows_exist_only_under_their_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    dataset = save(path, 0, 0.5)
    assert dataset.exists()
    dataset.expected = Recipe(step="s", code="c", parameters={"weight": 0.9}, inputs={})
    assert not dataset.exists()
    assert not MixtureRowsDataset(filepath=str(path), round="1").exists()


def test_rows_load_as_they_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    save(path, 0, 0.5)
    dataset = save(path, 1, 0.25)
    pd.testing.assert_frame_equal(dataset.load(), rows(1, 0.25))
