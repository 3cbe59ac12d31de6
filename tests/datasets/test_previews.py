"""What Kedro-Viz shows of datasets: told by the names of types, and nothing where nothing is there."""

import base64
import inspect
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from tikmix_pipeline.datasets import (
    CsvDataset,
    FigureDataset,
    JsonDataset,
    MixtureRowsDataset,
    RecordDataset,
    RoundRowsDataset,
    TableDataset,
)

TABLES = (TableDataset, CsvDataset)
RECORD = {"record": "tikmix_pipeline.mixture.records:MixtureRecord"}
KINDS: dict[type[Any], tuple[str, dict[str, Any]]] = {
    **{kind: ("TablePreview", {}) for kind in TABLES},
    RoundRowsDataset: ("TablePreview", {"round": "0"}),
    MixtureRowsDataset: ("TablePreview", {"round": "0"}),
    JsonDataset: ("JSONPreview", {}),
    RecordDataset: ("JSONPreview", RECORD),
    FigureDataset: ("ImagePreview", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kedro_viz_is_told_the_kind_and_shows_nothing_of_what_is_not_there(kind: type[Any], tmp_path: Path) -> None:
    name, options = KINDS[kind]
    dataset = kind(filepath=str(tmp_path / "none"), **options)
    assert inspect.signature(dataset.preview).return_annotation.__name__ == name
    assert dataset.preview() is None


@pytest.mark.parametrize("kind", TABLES)
def test_the_first_rows_of_a_table_are_shown_as_json_can_hold_them(kind: type[Any], tmp_path: Path) -> None:
    dataset = kind(filepath=str(tmp_path / "table"))
    dataset.save(pd.DataFrame({"task": ["a", "b", "c"], "influence": [0.5, math.nan, 2.0]}))
    shown = dataset.preview(nrows=2)
    assert json.loads(json.dumps(shown)) == {
        "columns": ["task", "influence"],
        "index": [0, 1],
        "data": [["a", 0.5], ["b", None]],
    }


def test_of_a_table_of_all_rounds_the_own_round_is_shown(tmp_path: Path) -> None:
    for number in (0, 1):
        rows = pd.DataFrame({"round": [number], "strategy": ["direct"], "domain": ["code"], "weight": [number / 4]})
        MixtureRowsDataset(filepath=str(tmp_path / "mixtures.parquet"), round=str(number)).save(rows)
    dataset = MixtureRowsDataset(filepath=str(tmp_path / "mixtures.parquet"), round="1")
    assert dataset.preview()["data"] == [[1, "direct", "code", 0.25]]


def test_a_document_and_a_figure_are_shown_as_they_stand_on_disk(tmp_path: Path) -> None:
    document = JsonDataset(filepath=str(tmp_path / "decision.json"))
    document.save({"weights": {"code": 0.25}})
    assert json.loads(document.preview()) == {"weights": {"code": 0.25}}
    figure = FigureDataset(filepath=str(tmp_path / "figure.png"))
    figure.save(Figure(figsize=(1, 1)))
    assert base64.b64decode(figure.preview()) == figure.path.read_bytes()
