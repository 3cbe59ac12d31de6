"""The Kedro datasets of the catalog: they alone know paths and formats, and ask whether an artifact is still fresh.

They may import `store` and the class of own records; what else they open is named by the catalog.
"""

from tikmix_pipeline.datasets.artifacts import CsvDataset as CsvDataset
from tikmix_pipeline.datasets.artifacts import FigureDataset as FigureDataset
from tikmix_pipeline.datasets.artifacts import FolderDataset as FolderDataset
from tikmix_pipeline.datasets.artifacts import JsonDataset as JsonDataset
from tikmix_pipeline.datasets.artifacts import PageDataset as PageDataset
from tikmix_pipeline.datasets.artifacts import RecordDataset as RecordDataset
from tikmix_pipeline.datasets.artifacts import TableDataset as TableDataset
from tikmix_pipeline.datasets.artifacts import TextDataset as TextDataset
from tikmix_pipeline.datasets.paths import FolderPathDataset as FolderPathDataset
from tikmix_pipeline.datasets.paths import WorkFolder as WorkFolder
from tikmix_pipeline.datasets.paths import WorkFolderDataset as WorkFolderDataset
from tikmix_pipeline.datasets.rounds import MixtureRowsDataset as MixtureRowsDataset
from tikmix_pipeline.datasets.rounds import RoundRowsDataset as RoundRowsDataset
