from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError

from tikmix_pipeline.datasets import RoundRowsDataset
from tikmix_pipeline.store.provenance import Recipe


def save(path: Path, number: int, value: float) -> RoundRowsDataset:
    dataset = RoundRowsDataset(filepath=str(path), round=str(number))
    dataset.expected = Recipe(step="s", code="c", parameters={"value": value}, inputs={})
    dataset.save(pd.DataFrame({"round": number, "task": ["quiz", "mean gain"], "ceiling": [value, value]}))
    return dataset


def test_rows_of_a_round_replace_their_own_and_leave_all_others(tmp_path: Path) -> None:
    path = tmp_path / "validate.parquet"
    for number, value in ((2, 0.5), (0, 0.25), (1, 0.75), (1, 0.125)):
        save(path, number, value)
    table = pd.read_parquet(path)
    assert table["round"].tolist() == [0, 0, 1, 1, 2, 2]
    assert table["ceiling"].tolist() == [0.25, 0.25, 0.125, 0.125, 0.5, 0.5]
    assert table["task"].tolist() == ["quiz", "mean gain"] * 3


def test_undefined_figures_stay_undefined_beside_defined_ones(tmp_path: Path) -> None:
    path = tmp_path / "validate.parquet"
    save(path, 0, float("nan"))
    save(path, 1, 0.5)
    assert pd.read_parquet(path)["ceiling"].isna().tolist() == [True, True, False, False]


def test_rows_exist_only_under_their_recipe(tmp_path: Path) -> None:
    path = tmp_path / "validate.parquet"
    first, second = save(path, 0, 0.5), save(path, 1, 0.25)
    assert first.exists()
    assert second.exists()
    first.expected = Recipe(step="s", code="c", parameters={"value": 0.9}, inputs={})
    assert not first.exists()
    assert not RoundRowsDataset(filepath=str(path), round="2").exists()


def test_damaged_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "validate.parquet"
    path.write_bytes(b"no table")
    with pytest.raises(DatasetError, match="is damaged"):
        RoundRowsDataset(filepath=str(path), round="0").load()
