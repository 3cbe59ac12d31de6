import contextlib
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from kedro.io import DatasetError

from tikmix_pipeline.datasets import MixtureRowsDataset, RoundRowsDataset
from tikmix_pipeline.store.provenance import ProvenanceRecord


def save(path: Path, number: int, value: float) -> RoundRowsDataset:
    dataset = RoundRowsDataset(filepath=str(path), round=str(number))
    dataset.expected = ProvenanceRecord(node="s", code="c", parameters={"value": value}, inputs={})
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


def test_rows_exist_only_under_their_record(tmp_path: Path) -> None:
    path = tmp_path / "validate.parquet"
    first, second = save(path, 0, 0.5), save(path, 1, 0.25)
    assert first.exists()
    assert second.exists()
    first.expected = ProvenanceRecord(node="s", code="c", parameters={"value": 0.9}, inputs={})
    assert not first.exists()
    assert not RoundRowsDataset(filepath=str(path), round="2").exists()


def test_damaged_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "validate.parquet"
    path.write_bytes(b"no table")
    with pytest.raises(DatasetError, match="is damaged"):
        RoundRowsDataset(filepath=str(path), round="0").load()


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


def save_mixture(path: Path, number: int, weight: float) -> MixtureRowsDataset:
    dataset = MixtureRowsDataset(filepath=str(path), round=str(number))
    dataset.expected = ProvenanceRecord(node="s", code="c", parameters={"weight": weight}, inputs={})
    dataset.save(rows(number, weight))
    return dataset


def rounds_in(path: Path) -> list[int]:
    return sorted(pd.read_parquet(path)["round"].unique().tolist())


def test_each_round_appends_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    for number in range(3):
        save_mixture(path, number, 0.5)
    assert rounds_in(path) == [0, 1, 2]
    assert list(pd.read_parquet(path).columns) == ["round", "strategy", "domain", "weight", "epochs", "tokens"]


def test_changed_round_drops_the_rounds_decided_from_it(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    for number in range(3):
        save_mixture(path, number, 0.5)
    save_mixture(path, 1, 0.75)
    assert rounds_in(path) == [0, 1]


def test_round_written_again_unchanged_keeps_later_rounds(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    for number in range(3):
        save_mixture(path, number, 0.5)
    save_mixture(path, 0, 0.5)
    assert rounds_in(path) == [0, 1, 2]


def test_rows_of_a_mixture_exist_only_under_their_record(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    dataset = save_mixture(path, 0, 0.5)
    assert dataset.exists()
    dataset.expected = ProvenanceRecord(node="s", code="c", parameters={"weight": 0.9}, inputs={})
    assert not dataset.exists()
    assert not MixtureRowsDataset(filepath=str(path), round="1").exists()


def test_rows_load_as_they_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    save_mixture(path, 0, 0.5)
    dataset = save_mixture(path, 1, 0.25)
    pd.testing.assert_frame_equal(dataset.load(), rows(1, 0.25))


def test_rows_with_a_byte_flipped_are_made_again_and_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    datasets = [save_mixture(path, number, 0.5 + number / 8) for number in range(2)]
    whole, expected = path.read_bytes(), [dataset.load() for dataset in datasets]
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        for dataset, before in zip(datasets, expected, strict=True):
            # where a fingerprint was hit they are made again though they are the same
            with contextlib.suppress(*([] if dataset.exists() else [DatasetError])):
                pd.testing.assert_frame_equal(dataset.load(), before)


def test_damaged_table_is_written_anew_round_by_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mixtures.parquet"
    for number in range(2):
        save_mixture(path, number, 0.5)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    for number in range(2):
        save_mixture(path, number, 0.5)
    assert path.read_bytes() == whole
    assert "is damaged" in caplog.text


def test_table_of_an_earlier_version_still_counts(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.parquet"
    dataset = save_mixture(path, 0, 0.5)
    table = pq.read_table(path)
    metadata = {name: value for name, value in table.schema.metadata.items() if name != b"tikmix.digests"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert dataset.exists()
