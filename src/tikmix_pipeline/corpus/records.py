"""The records a corpus keeps as JSON: its manifest, the report on contamination and that on its sources."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

MANIFEST_VERSION: Literal[1] = 1
UNCHECKED = "not checked for overlap or duplicates"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class OverlapRow(_Record):
    """How one evaluation set overlaps with one domain's training text; all counts are None where it is unknown.

    Attributes:
        evaluation: a task's name, `heldout/<domain>`, or `UNCHECKED` for a pre-tokenised domain.
        domain: the domain whose training documents were searched.
        texts: evaluation texts looked up.
        too_short: evaluation texts with fewer words than an n-gram, not looked up.
        hit: texts with at least one n-gram in the domain, before removal.
        leaked: texts with at least `max_share` of their n-grams in one document of the domain, before removal.
        training_documents_removed: documents of the domain that leaked this set.
        heldout_documents_dropped: documents of this set that leaked into the domain.
        share_left: of the set's distinct n-grams, the share that stands in the domain's training text after removal.
    """

    evaluation: str
    domain: str
    texts: int | None = None
    too_short: int | None = None
    hit: int | None = None
    leaked: int | None = None
    training_documents_removed: int | None = None
    heldout_documents_dropped: int | None = None
    share_left: float | None = None


class DomainReport(_Record):
    """Where a domain came from and what was left out on the way; of a pre-tokenised one, only where it came from.

    Attributes:
        sources: the parameters of its sources, which differ by their kind.
        pretokenised: whether the sources hold token ids.
        python: the version whose standard library was read.
        sampled: whether it was read at random places instead of whole.
        total_bytes: UTF-8 bytes of all its text, an estimate where it was sampled.
        documents_read: documents looked at.
        exact_duplicates: documents left out as copies.
        documents_sampled: documents within the sample.
        near_duplicates: documents of the sample left out for resembling another.
        documents: documents kept, for training and held out.
        bytes: UTF-8 bytes of the documents kept.
        digest: SHA-256 of the SHA-256 of each document kept.
    """

    sources: list[dict[str, Any]]
    pretokenised: bool
    python: str | None = None
    sampled: bool | None = None
    total_bytes: int | None = None
    documents_read: int | None = None
    exact_duplicates: int | None = None
    documents_sampled: int | None = None
    near_duplicates: int | None = None
    documents: int | None = None
    bytes: int | None = None
    digest: str | None = None

    @model_serializer(mode="wrap")
    def _without_unknown(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in fields(self).items() if value is not None}


class TaskReport(_Record):
    """Where a task came from, how many items it has, and the SHA-256 of the SHA-256 of each item's text."""

    sources: list[dict[str, Any]]
    items: int
    digest: str


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
    """All that is known of a corpus of token shards, which is written last.

    Attributes:
        version: of this record.
        corpus: the corpus's name.
        dtype: the NumPy dtype of the token ids.
        vocabulary_size: all ids are smaller.
        tokenizer_digest: tells the tokenizer that made the ids.
        domains: the shards by domain and split (`train` or `heldout`).
        tasks: the task items.
        overlap: the report on contamination.
        sources: the report on the sources.
    """

    version: Literal[1] = MANIFEST_VERSION
    corpus: str
    dtype: str
    vocabulary_size: int
    tokenizer_digest: str
    domains: dict[str, dict[str, SplitShards]]
    tasks: TasksFile
    overlap: list[OverlapRow]
    sources: SourcesReport
