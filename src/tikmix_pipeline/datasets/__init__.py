"""The only code that knows paths and formats; every artifact stands beside the recipe that made it."""

from tikmix_pipeline.datasets.artifacts import (
    CsvDataset,
    FigureDataset,
    FolderDataset,
    JsonDataset,
    PageDataset,
    TableDataset,
    TextDataset,
)
from tikmix_pipeline.datasets.mixtures import MixtureRowsDataset
from tikmix_pipeline.datasets.paths import (
    FolderPathDataset,
    ResumePoint,
    ResumePointDataset,
    WorkFolder,
    WorkFolderDataset,
)
from tikmix_pipeline.datasets.rounds import RoundRowsDataset

__all__ = [
    "CsvDataset",
    "FigureDataset",
    "FolderDataset",
    "FolderPathDataset",
    "JsonDataset",
    "MixtureRowsDataset",
    "PageDataset",
    "ResumePoint",
    "ResumePointDataset",
    "RoundRowsDataset",
    "TableDataset",
    "TextDataset",
    "WorkFolder",
    "WorkFolderDataset",
]
