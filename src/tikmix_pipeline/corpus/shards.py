"""Token shards: headerless little-endian token ids beside a manifest, memory-mapped for reading.

Every document is followed by the end-of-text token. nanoGPT and OLMo-core read the same files. Each file's length and
SHA-256 stand in the manifest, so a file that was cut off or altered is found before a step is trained on it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from tikmix_pipeline.corpus.batches import Windows
from tikmix_pipeline.corpus.records import MANIFEST_VERSION, Manifest, ShardFile, SplitShards, TasksFile
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, sha256_of_file

MANIFEST = "manifest.json"
TASKS = "tasks.parquet"
TOKENIZER = "tokenizer"

Ids = npt.NDArray[np.unsignedinteger[Any]]

_OTHER_FILES = {
    b"\x93NUMPY": "a file of numpy.save",
    b"MMIDIDX": "an index of Megatron's",
    b"\x1f\x8b\x08": "compressed (gzip)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)",
    b"PAR1": "Parquet",
    b"PK\x03\x04": "a zip archive",
}
_PLAIN_TEXT = bytes([9, 10, 13, *range(32, 127)])
_LOOKED_AT = 4096
_FEWEST_TO_TELL = 64
_LARGEST_UPPER_HALF = 3
"""Of the two halves of a wider id, the upper one is no larger in vocabularies of up to 262,144 tokens."""

# path, size, modification time and SHA-256 of files whose content was found to be right by this process
_verified: set[tuple[str, int, int, str]] = set()


def dtype_for(vocabulary_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest dtype that holds every id."""
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Writes one split of one domain as files of at most `limit` tokens each, hashing as it goes.

    `prefix` is the files' path in the corpus folder up to the number: `<domain>/<split>`.
    """

    def __init__(self, folder: Path, prefix: str, dtype: npt.DTypeLike, limit: int):
        self.prefix = prefix
        self._folder, self._dtype, self._limit = folder, np.dtype(dtype), limit
        self._files: list[ShardFile] = []
        self._stream: BinaryIO | None = None
        self._tokens = 0  # of the open file
        self._hash = hashlib.sha256()
        (folder / prefix).parent.mkdir(parents=True, exist_ok=True)

    def write(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Append token ids."""
        while len(ids):
            if self._stream is None:
                self._stream = (self._folder / self._name()).open("wb")
                self._tokens, self._hash = 0, hashlib.sha256()
            room = self._limit - self._tokens
            data = ids[:room].astype(self._dtype, copy=False).tobytes()
            self._stream.write(data)
            self._hash.update(data)
            self._tokens += min(room, len(ids))
            if len(ids) >= room:
                self.close()
            ids = ids[room:]

    def finish(self, *, documents: int, size: int) -> SplitShards:
        """Return the split's entry in the manifest, once all documents, of `size` UTF-8 bytes, are written."""
        self.close()
        tokens = sum(file.tokens for file in self._files)
        return SplitShards(files=self._files, tokens=tokens, documents=documents, bytes=size)

    def _name(self) -> str:
        return f"{self.prefix}-{len(self._files):05d}.bin"

    def close(self) -> None:
        """Close the open file, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._files.append(ShardFile(file=self._name(), tokens=self._tokens, sha256=self._hash.hexdigest()))


class TokenShards:
    """A corpus folder opened for reading; made by `open`.

    Attributes:
        domains: names of the domains, sorted.
        vocabulary_size: ids in the shards are smaller.
        tokenizer_digest: tells the tokenizer that made the ids.
        manifest_digest: SHA-256 of the manifest, and so of everything in the corpus.
    """

    def __init__(self, folder: Path, manifest: Manifest, manifest_digest: str):
        self.folder = folder
        self.manifest = manifest
        self.manifest_digest = manifest_digest
        self.domains = tuple(sorted(manifest.domains))
        self.vocabulary_size = manifest.vocabulary_size
        self.tokenizer_digest = manifest.tokenizer_digest
        self._dtype = np.dtype(manifest.dtype).newbyteorder("<")

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> "TokenShards":
        """Open a corpus folder.

        To `verify`, all files are read and their SHA-256 compared, once per process as long as size and modification
        time stay the same; their lengths are compared in any case.

        Raises:
            TikmixError: the folder or a file is missing, has another length or another content than the manifest says.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise TikmixError(f"{folder} holds no corpus (no {MANIFEST}). Run the `corpus` pipeline first.")
        content = read_json(path)
        remedy = f"Delete {folder} and run the `corpus` pipeline again."
        if content.get("version") != MANIFEST_VERSION:
            raise TikmixError(f"{path} has version {content.get('version')!r}, expected {MANIFEST_VERSION}. {remedy}")
        try:
            shards = cls(folder, Manifest.model_validate(content), sha256_of_file(path))
        except ValidationError as error:
            raise TikmixError(f"{path} is no manifest ({error}). {remedy}") from error
        files = [file for domain in shards.domains for file in shards._files(domain)]
        for file in files:
            shards._check_length(file, remedy)
        hashed: list[ShardFile | TasksFile] = [*files, shards.manifest.tasks]
        for one in hashed if verify else []:
            _check_content(folder / one.file, one.sha256, remedy)
        return shards

    @property
    def tokenizer_folder(self) -> Path:
        """The Hugging Face tokenizer that made the ids."""
        return self.folder / TOKENIZER

    @property
    def tasks_file(self) -> Path:
        """The tokenised task items, for `TaskItems.open`."""
        return self.folder / TASKS

    def tokens(self, domain: str, split: str = "train") -> int:
        """Return the number of tokens in a split of a domain, end-of-text tokens included."""
        return self._split(domain, split).tokens

    def documents(self, domain: str, split: str = "train") -> int:
        """Return the number of documents in a split of a domain."""
        return self._split(domain, split).documents

    def bytes_per_token(self, domain: str, split: str = "train") -> float:
        """Return UTF-8 bytes of text per token: what turns loss per token into bits per byte."""
        shards = self._split(domain, split)
        return shards.bytes / shards.tokens

    def digest(self, domain: str) -> str:
        """Return the SHA-256 of a domain's shards: equal digests, equal tokens in equal order."""
        return hashlib.sha256("".join(file.sha256 for file in self._files(domain)).encode()).hexdigest()

    def overlap_report(self) -> list[dict[str, str | int | float | None]]:
        """Return the rows on contamination as they stand in the manifest."""
        return [dict(sorted(row.model_dump().items())) for row in self.manifest.overlap]

    def windows(self, domain: str, context: int, split: str = "train") -> Windows:
        """Return the windows of a split, memory-mapped. A split shorter than one window raises TikmixError."""
        shards = self._split(domain, split)
        if shards.tokens <= context:
            raise TikmixError(
                f"the {split} split of the domain {domain!r} has {shards.tokens} tokens, fewer than one window of "
                f"train.context + 1 = {context + 1}. Give the domain more text, or lower train.context."
            )
        return Windows([np.memmap(self.folder / file.file, self._dtype, mode="r") for file in shards.files], context)

    def require_windows(self, context: int) -> None:
        """Refuse a context that is longer than a split of a domain: now, and not after a chunk of training."""
        for domain in self.domains:
            for split in ("train", "heldout"):
                self.windows(domain, context, split)

    def _split(self, domain: str, split: str) -> SplitShards:
        if domain not in self.manifest.domains:
            raise TikmixError(f"the corpus {self.folder} has no domain {domain!r}; it has {', '.join(self.domains)}.")
        return self.manifest.domains[domain][split]

    def _files(self, domain: str) -> list[ShardFile]:
        return [file for shards in self.manifest.domains[domain].values() for file in shards.files]

    def _check_length(self, file: ShardFile, remedy: str) -> None:
        path = self.folder / file.file
        expected = file.tokens * self._dtype.itemsize
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            problem = "is missing" if found is None else f"was cut off or added to: {found} bytes instead of {expected}"
            raise TikmixError(f"the token shard {path} {problem}. {remedy}")


def _check_content(path: Path, sha256: str, remedy: str) -> None:
    stat = path.stat() if path.is_file() else None
    known = stat and (str(path.resolve()), stat.st_size, stat.st_mtime_ns, sha256)
    if known in _verified:
        return
    if known is None or sha256_of_file(path) != sha256:
        raise TikmixError(f"{path} was altered after writing: its SHA-256 differs. {remedy}")
    _verified.add(known)


def chunks_of_ids(path: Path, dtype: npt.DTypeLike, chunk: int = 1 << 22) -> Iterator[Ids]:
    """Yield the ids of a headerless token file piece by piece.

    Raises:
        TikmixError: it ends within an id, or is none of this dtype: it begins as another kind of file, is text, or has
            next to nothing in every second id, as wider ones have.
    """
    itemsize = np.dtype(dtype).itemsize
    size = path.stat().st_size
    if size == 0 or size % itemsize:
        raise TikmixError(
            f"{path} has {size} bytes, which is no whole number of {np.dtype(dtype).name} token ids. Check the "
            "source's `dtype`; a header must be cut off, and a truncated file copied again."
        )
    ids = np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
    _require_ids(path, ids[:_LOOKED_AT])
    for start in range(0, len(ids), chunk):
        yield ids[start : start + chunk]


def _require_ids(path: Path, ids: Ids) -> None:
    head = ids.tobytes()
    kind = next((kind for beginning, kind in _OTHER_FILES.items() if head.startswith(beginning)), None)
    if kind is None and len(head) >= _FEWEST_TO_TELL and not head.translate(None, _PLAIN_TEXT):
        kind = "text"
    if kind is not None:
        raise TikmixError(
            f"{path} is {kind}, where token ids without a header are expected. Write them so "
            "(array.astype('<u2').tofile(path)), or set the source's `kind`."
        )
    halves = ids[0 : len(ids) // 2 * 2].reshape(-1, 2)
    if len(ids) >= _FEWEST_TO_TELL and halves[:, 1].max() <= _LARGEST_UPPER_HALF < halves[:, 0].max():
        raise TikmixError(
            f"{path}: every second {ids.dtype.name} id is {halves[:, 1].max()} or less, so that its ids seem to have "
            f"{2 * ids.itemsize} bytes each. Check the source's `dtype`, which may be uint32; write ids of 8 bytes "
            "anew."
        )
