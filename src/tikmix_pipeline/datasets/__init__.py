"""The Kedro datasets of the catalog: they alone know paths and formats, and ask whether an artifact is still fresh.

They may import `store` and the class of own records; what else they open is named by the catalog.
"""

from tikmix_pipeline.datasets.artifacts import (
    CsvDataset,
    FigureDataset,
    FolderDataset,
    JsonDataset,
    PageDataset,
    RecordDataset,
    TableDataset,
    TextDataset,
)
from tikmix_pipeline.datasets.paths import FolderPathDataset, WorkFolder, WorkFolderDataset
from tikmix_pipeline.datasets.rounds import MixtureRowsDataset, RoundRowsDataset

__all__ = [
    "CsvDataset",
    "FigureDataset",
    "FolderDataset",
    "FolderPathDataset",
    "JsonDataset",
    "MixtureRowsDataset",
    "PageDataset",
    "RecordDataset",
    "RoundRowsDataset",
    "TableDataset",
    "TextDataset",
    "WorkFolder",
    "WorkFolderDataset",
]
