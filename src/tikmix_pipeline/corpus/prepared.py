"""`PreparedText`: the corpus as text, between its preparation and the tokenizer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from tikmix_pipeline.corpus.records import OverlapRow, SourcesReport
from tikmix_pipeline.corpus.tasks import Half, Item
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, replacing, write_json

SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class PreparedText:
    """Text that is unique, split and free of evaluation text.

    Attributes:
        documents: domain -> split (`train` or `heldout`) -> documents. Pre-tokenised domains are not in it.
        items: task -> half (`query` or `evaluation`) -> items.
        overlap: the report on contamination.
        sources: where everything came from and what was left out on the way.
    """

    documents: Mapping[str, Mapping[str, list[str]]]
    items: Mapping[str, Mapping[Half, list[Item]]]
    overlap: list[OverlapRow] = field(default_factory=list)
    sources: SourcesReport = field(default_factory=SourcesReport)

    def write(self, folder: Path) -> None:
        """Write a folder: `documents/<domain>.parquet` (split, text), `items.parquet` and `report.json`."""
        with replacing(folder) as temporary:
            (temporary / "documents").mkdir(parents=True)
            schema = pa.schema([("split", pa.string()), ("text", pa.large_string())])
            for domain, splits in self.documents.items():
                columns = {
                    "split": [split for split, texts in splits.items() for _ in texts],
                    "text": [text for texts in splits.values() for text in texts],
                }
                table = pa.table(columns, schema=schema)
                pq.write_table(table, temporary / "documents" / f"{domain}.parquet", compression="zstd")
            rows = [
                {"task": task, "half": half, **asdict(item)}
                for task, halves in self.items.items()
                for half, items in halves.items()
                for item in items
            ]
            pq.write_table(pa.Table.from_pylist(rows), temporary / "items.parquet", compression="zstd")
            report = {
                "domains": list(self.documents),
                "overlap": [row.model_dump() for row in self.overlap],
                "sources": self.sources.model_dump(),
            }
            write_json(temporary / "report.json", report)

    @classmethod
    def read(cls, folder: Path) -> "PreparedText":
        """Read what `write` wrote.

        Raises:
            TikmixError: a file is missing or damaged.
        """
        try:
            report = read_json(folder / "report.json")
            documents: dict[str, dict[str, list[str]]] = {}
            for domain in report["domains"]:
                table = pq.read_table(folder / "documents" / f"{domain}.parquet").to_pydict()
                documents[domain] = {split: [] for split in SPLITS}
                for split, text in zip(table["split"], table["text"], strict=True):
                    documents[domain][split].append(text)
            items: dict[str, dict[Half, list[Item]]] = {}
            for row in pq.read_table(folder / "items.parquet").to_pylist():
                task, half = row.pop("task"), row.pop("half")
                items.setdefault(task, {}).setdefault(half, []).append(Item(**row))
            overlap = [OverlapRow.model_validate(row) for row in report["overlap"]]
            return cls(documents, items, overlap, SourcesReport.model_validate(report["sources"]))
        except (OSError, pa.ArrowInvalid, KeyError, ValidationError) as error:
            raise TikmixError(
                f"{folder} cannot be read ({error}). Delete it and run the `corpus` pipeline again."
            ) from error
