"""What a corpus keeps of itself: its prepared text, its manifest, the reports on contamination and on its sources."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from tikmix_pipeline.corpus.tasks import Half, Item, item_rows, items_of_rows
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, replacing, write_json

MANIFEST_VERSION: Literal[1] = 1
SPLITS = ("train", "heldout")
UNCHECKED = "not checked for overlap or duplicates"


_ITEMS = pa.schema(
    [
        *((name, pa.string()) for name in ("task", "half", "question", "answer", "passage")),
        ("options", pa.list_(pa.string())),
        ("gold", pa.int32()),
    ]
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class OverlapRow(_Record):
    """How one evaluation set overlaps with one domain's training text; all counts are None where it is unknown."""

    evaluation: str
    """A task's name, `heldout/<domain>`, or `UNCHECKED` for a pre-tokenised domain."""
    domain: str
    texts: int | None = None
    too_short: int | None = None
    """Texts with fewer words than an n-gram, not looked up."""
    hit: int | None = None
    """Texts with at least one n-gram in the domain, before removal."""
    leaked: int | None = None
    """Texts with at least `max_share` of their n-grams in one document of the domain, before removal."""
    training_documents_removed: int | None = None
    heldout_documents_dropped: int | None = None
    """Documents of this set that leaked into the domain."""
    share_left: float | None = None
    """Of the set's distinct n-grams, the share that stands in the domain's training text after removal."""


class _Sparse(_Record):
    """A record that says nothing of what is unknown."""

    @model_serializer(mode="wrap")
    def _without_unknown(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in fields(self).items() if value is not None}


class DomainReport(_Sparse):
    """Where a domain came from and what was left out on the way; of a pre-tokenised one, only where it came from."""

    sources: list[dict[str, Any]]
    """The parameters of its sources, which differ by their kind."""
    pretokenised: bool
    python: str | None = None
    """The version whose standard library was read."""
    sampled: bool | None = None
    """Whether it was read at random places instead of whole."""
    total_bytes: int | None = None
    """UTF-8 bytes of all its distinct documents, an estimate where it was sampled or capped."""
    documents_read: int | None = None
    exact_duplicates: int | None = None
    documents_sampled: int | None = None
    near_duplicates: int | None = None
    documents: int | None = None
    """Those kept, for training and held out."""
    bytes: int | None = None
    """Of the documents kept, in UTF-8."""
    digest: str | None = None
    """SHA-256 of the SHA-256 of each document kept."""
    unreadable_files: list[str] | None = None
    """Those skipped (`corpus.on_unreadable`), if any."""
    lost_share: float | None = None
    """Of the bytes of all files, at most the share that was lost with them."""
    null_texts: int | None = None
    """Records that were read and left out because their text is null, if any."""


class TaskReport(_Sparse):
    """Where a task came from, how many items it has, and the SHA-256 of the SHA-256 of each item's text."""

    sources: list[dict[str, Any]]
    items: int
    choices: int = 0
    """Items that offer options."""
    example: str = ""
    """How the first item was understood."""
    digest: str
    unchecked_items: int | None = None
    """Those with fewer words than an n-gram, which were not looked up in training text, if any."""


class SourcesReport(_Record):
    """Where everything came from, by domain and by task."""

    domains: dict[str, DomainReport] = {}
    tasks: dict[str, TaskReport] = {}


class ShardFile(_Record):
    """One file of token ids: its path in the corpus folder, its length in tokens, and the SHA-256 of its bytes."""

    file: str
    tokens: int
    sha256: str


class SplitShards(_Record):
    """The files of one split of a domain, in order, their tokens (end-of-text tokens included) and what they hold."""

    files: list[ShardFile]
    tokens: int
    documents: int
    bytes: int


class TasksFile(_Record):
    """The file of the tokenised task items."""

    file: str
    sha256: str


class Manifest(_Record):
    """All that is known of a corpus of token shards, which is written last."""

    version: Literal[1] = MANIFEST_VERSION
    corpus: str
    """Its name."""
    dtype: str
    """The NumPy dtype of the token ids."""
    vocabulary_size: int
    """All ids are smaller."""
    tokenizer_digest: str
    domains: dict[str, dict[str, SplitShards]]
    """By domain and split."""
    tasks: TasksFile
    overlap: list[OverlapRow]
    sources: SourcesReport


@dataclass(frozen=True)
class PreparedText:
    """The corpus as text, between its preparation and the tokenizer: unique, split and free of evaluation text."""

    documents: Mapping[str, Mapping[str, list[str]]]
    """Domain -> split (`train` or `heldout`) -> documents. Pre-tokenised domains are not in it."""
    items: Mapping[str, Mapping[Half, list[Item]]]
    """Task -> half (`query` or `evaluation`) -> items."""
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
            rows = pa.Table.from_pylist(item_rows(self.items), schema=_ITEMS)
            pq.write_table(rows, temporary / "items.parquet", compression="zstd")
            report = {
                "domains": list(self.documents),
                "overlap": [row.model_dump() for row in self.overlap],
                "sources": self.sources.model_dump(),
            }
            write_json(temporary / "report.json", report)

    @classmethod
    def read(cls, folder: Path) -> "PreparedText":
        """Read what `write` wrote. A file that is missing or damaged raises TikmixError."""
        try:
            report = read_json(folder / "report.json")
            documents: dict[str, dict[str, list[str]]] = {}
            for domain in report["domains"]:
                table = pq.read_table(folder / "documents" / f"{domain}.parquet").to_pydict()
                documents[domain] = {split: [] for split in SPLITS}
                for split, text in zip(table["split"], table["text"], strict=True):
                    documents[domain][split].append(text)
            items = items_of_rows(pq.read_table(folder / "items.parquet").to_pylist(), _item)
            overlap = [OverlapRow.model_validate(row) for row in report["overlap"]]
            return cls(documents, items, overlap, SourcesReport.model_validate(report["sources"]))
        except (OSError, pa.ArrowInvalid, KeyError, ValidationError) as error:
            raise TikmixError(
                f"{folder} cannot be read ({error}). Delete it and run the `corpus` pipeline again."
            ) from error


def _item(*, options: list[str], **fields: Any) -> Item:
    return Item(options=tuple(options), **fields)
