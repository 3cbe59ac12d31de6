from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError
from matplotlib.figure import Figure

from tikmix_pipeline.datasets import CsvDataset, FigureDataset, FolderDataset, JsonDataset, TableDataset
from tikmix_pipeline.files import replacing
from tikmix_pipeline.store.provenance import ProvenanceRecord, read_record, record_path

RECORD = ProvenanceRecord(node="make", code="c", parameters={"a": 1}, inputs={})
OTHER = ProvenanceRecord(node="make", code="c", parameters={"a": 2}, inputs={})


def test_json_round_trips_and_leaves_its_record_beside_it(tmp_path: Path) -> None:
    dataset = JsonDataset(filepath=str(tmp_path / "mixture.json"))
    dataset.expected = RECORD
    dataset.save({"weights": {"code": 0.25}})
    assert dataset.load() == {"weights": {"code": 0.25}}
    written = read_record(dataset.path)
    assert written is not None
    assert written.fingerprint == RECORD.fingerprint


def test_table_round_trips_bit_by_bit(tmp_path: Path) -> None:
    table = pd.DataFrame({"task": ["piqa"], "influence": [0.1 + 0.2]})
    dataset = TableDataset(filepath=str(tmp_path / "influence.parquet"))
    dataset.save(table)
    pd.testing.assert_frame_equal(dataset.load(), table, check_exact=True)


def test_table_for_other_tools_keeps_every_bit_and_the_zeros_of_its_ids(tmp_path: Path) -> None:
    table = pd.DataFrame({"run": ["0001", "0002"], "code": [0.1 + 0.2, 1 / 3]})
    dataset = CsvDataset(filepath=str(tmp_path / "ratios.csv"))
    dataset.save(table)
    assert dataset.path.read_text().splitlines()[0] == "run,code"
    pd.testing.assert_frame_equal(dataset.load(), table, check_exact=True)


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        TableDataset(filepath=str(tmp_path / name)).save(pd.DataFrame({"x": [1.0, 2.0]}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_kedro_sees_an_artifact_only_while_its_record_matches(tmp_path: Path) -> None:
    dataset = JsonDataset(filepath=str(tmp_path / "x.json"))
    dataset.expected = RECORD
    dataset.save(1)
    assert dataset.exists()
    dataset.expected = OTHER
    assert not dataset.exists()


def test_loading_what_was_made_from_other_parameters_is_refused_with_the_reason(tmp_path: Path) -> None:
    dataset = JsonDataset(filepath=str(tmp_path / "x.json"))
    dataset.expected = RECORD
    dataset.save(1)
    dataset.expected = OTHER
    with pytest.raises(DatasetError, match=r"x\.json is stale: a was 1, is 2"):
        dataset.load()


def test_write_that_fails_keeps_the_old_artifact_but_not_its_record(tmp_path: Path) -> None:
    dataset = JsonDataset(filepath=str(tmp_path / "x.json"))
    dataset.expected = RECORD
    dataset.save({"old": 1})
    with pytest.raises(DatasetError):
        dataset.save({"new": object()})
    assert (tmp_path / "x.json").read_text().strip().startswith("{")
    assert not record_path(dataset.path).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_folder_is_written_by_the_function_it_is_given(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        with replacing(folder) as temporary:
            temporary.mkdir()
            (temporary / "a.txt").write_text("text")

    dataset = FolderDataset(filepath=str(tmp_path / "corpus"), reader="pathlib:Path")
    dataset.expected = RECORD
    dataset.save(write)
    assert (dataset.load() / "a.txt").read_text() == "text"
    assert dataset.exists()


def test_folder_of_large_files_is_held_to_their_sizes_until_it_is_used(tmp_path: Path) -> None:
    dataset = FolderDataset(filepath=str(tmp_path / "gradients"), reader="pathlib:Path", digested=False)
    dataset.expected = RECORD

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "part").write_text("gradient")

    dataset.save(write)
    (dataset.path / "part").write_text("GRADIENT")
    assert dataset.exists()
    with pytest.raises(DatasetError, match=r"gradients was altered after it was written: part\."):
        dataset.load()
    assert not dataset.exists()
    dataset.path.joinpath("part").write_text("gradient")
    dataset.save(lambda _: None)
    assert dataset.exists()
    (dataset.path / "part").unlink()
    assert not dataset.exists()


def test_figure_is_drawn_without_a_display(tmp_path: Path) -> None:
    figure = Figure()
    figure.subplots().plot([1, 2])
    dataset = FigureDataset(filepath=str(tmp_path / "f.png"))
    dataset.save(figure)
    assert dataset.load().read_bytes().startswith(b"\x89PNG")
