"""Token shards: headerless little-endian token ids beside a manifest, memory-mapped for reading.

Every document is followed by the end-of-text token. nanoGPT and OLMo-core read the same files. Each file's length and
SHA-256 stand in the manifest, so a file that was cut off or altered is found before a step is trained on it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.corpus.batches import Windows
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, sha256_of_file, write_json

MANIFEST_VERSION = 1
MANIFEST = "manifest.json"
TASKS = "tasks.parquet"
TOKENIZER = "tokenizer"

Ids = npt.NDArray[np.unsignedinteger[Any]]

# path, size, modification time and SHA-256 of files whose content was found to be right by this process
_verified: set[tuple[str, int, int, str]] = set()


def dtype_for(vocabulary_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest dtype that holds every id."""
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Writes one split of one domain as files of at most `limit` tokens each, hashing as it goes.

    Args:
        folder: the corpus folder.
        prefix: the files' path in it up to the number: `<domain>/<split>`.
        dtype: of the token ids.
        limit: tokens per file.
    """

    def __init__(self, folder: Path, prefix: str, dtype: npt.DTypeLike, limit: int):
        self.prefix = prefix
        self._folder, self._dtype, self._limit = folder, np.dtype(dtype), limit
        self._files: list[dict[str, Any]] = []
        self._stream: BinaryIO | None = None
        self._hash = hashlib.sha256()
        (folder / prefix).parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def write(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Append token ids."""
        while len(ids):
            stream = self._stream or self._open()
            room = self._limit - self._files[-1]["tokens"]
            data = ids[:room].astype(self._dtype, copy=False).tobytes()
            stream.write(data)
            self._hash.update(data)
            self._files[-1]["tokens"] += min(room, len(ids))
            if len(ids) >= room:
                self._close()
            ids = ids[room:]

    def entry(self, *, documents: int, size: int) -> dict[str, Any]:
        """Return the split's entry in the manifest, once all is written."""
        self._close()
        tokens = sum(file["tokens"] for file in self._files)
        return {"files": self._files, "tokens": tokens, "documents": documents, "bytes": size}

    def _open(self) -> BinaryIO:
        name = f"{self.prefix}-{len(self._files):05d}.bin"
        self._stream = (self._folder / name).open("wb")
        self._hash = hashlib.sha256()
        self._files.append({"file": name, "tokens": 0})
        return self._stream

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._files[-1]["sha256"] = self._hash.hexdigest()


class TokenShards:
    """A corpus folder opened for reading; made by `open`.

    Attributes:
        folder: the corpus folder.
        domains: names of the domains, sorted.
        vocabulary_size: ids in the shards are smaller.
        tokenizer_digest: digest of the tokenizer that made the ids.
        manifest_digest: SHA-256 of the manifest, and so of everything in the corpus.
        manifest: the manifest itself.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], manifest_digest: str):
        self.folder = folder
        self.manifest = manifest
        self.manifest_digest = manifest_digest
        self.domains: tuple[str, ...] = tuple(sorted(manifest["domains"]))
        self.vocabulary_size: int = manifest["vocabulary_size"]
        self.tokenizer_digest: str = manifest["tokenizer_digest"]
        self._dtype = np.dtype(manifest["dtype"]).newbyteorder("<")

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> "TokenShards":
        """Open a corpus folder.

        Args:
            folder: where `manifest.json` is.
            verify: read all files and compare their SHA-256, once per process as long as size and modification time
                stay the same; their lengths are compared in any case.

        Raises:
            TikmixError: the folder or a file is missing, has another length or another content than the manifest says.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise TikmixError(f"{folder} holds no corpus (no {MANIFEST}). Run the `corpus` pipeline first.")
        manifest = read_json(path)
        if manifest.get("version") != MANIFEST_VERSION:
            raise TikmixError(
                f"{path} has version {manifest.get('version')!r}, expected {MANIFEST_VERSION}. Delete {folder} and run "
                "the `corpus` pipeline again."
            )
        shards = cls(folder, manifest, sha256_of_file(path))
        for entry in shards._entries():
            shards._check_length(entry)
        if verify:
            for entry in [*shards._entries(), manifest["tasks"]]:
                shards._check_content(entry)
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
        return int(self._split(domain, split)["tokens"])

    def documents(self, domain: str, split: str = "train") -> int:
        """Return the number of documents in a split of a domain."""
        return int(self._split(domain, split)["documents"])

    def bytes_per_token(self, domain: str, split: str = "train") -> float:
        """Return UTF-8 bytes of text per token: what turns loss per token into bits per byte."""
        entry = self._split(domain, split)
        return float(entry["bytes"] / entry["tokens"])

    def digest(self, domain: str) -> str:
        """Return the SHA-256 of a domain's shards: equal digests, equal tokens in equal order."""
        files = [file["sha256"] for split in self.manifest["domains"][domain].values() for file in split["files"]]
        return hashlib.sha256("".join(files).encode()).hexdigest()

    def windows(self, domain: str, context: int, split: str = "train") -> Windows:
        """Return the windows of a split of a domain, memory-mapped.

        Raises:
            TikmixError: the split is shorter than one window.
        """
        entry = self._split(domain, split)
        if entry["tokens"] <= context:
            raise TikmixError(
                f"the {split} split of the domain {domain!r} has {entry['tokens']} tokens, fewer than one window of "
                f"train.context + 1 = {context + 1}. Give the domain more text, or lower train.context."
            )
        files = [np.memmap(self.folder / file["file"], dtype=self._dtype, mode="r") for file in entry["files"]]
        return Windows(files, context)

    def _split(self, domain: str, split: str) -> Mapping[str, Any]:
        if domain not in self.manifest["domains"]:
            raise TikmixError(f"the corpus {self.folder} has no domain {domain!r}; it has {', '.join(self.domains)}.")
        entry: Mapping[str, Any] = self.manifest["domains"][domain][split]
        return entry

    def _entries(self) -> Iterator[Mapping[str, Any]]:
        for domain in self.domains:
            for split in self.manifest["domains"][domain].values():
                yield from split["files"]

    def _check_length(self, entry: Mapping[str, Any]) -> None:
        path = self.folder / entry["file"]
        expected = entry["tokens"] * self._dtype.itemsize
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            problem = "is missing" if found is None else f"was cut off or added to: {found} bytes instead of {expected}"
            raise TikmixError(f"the token shard {path} {problem}. {self._remedy}")

    def _check_content(self, entry: Mapping[str, Any]) -> None:
        path = self.folder / entry["file"]
        stat = path.stat() if path.is_file() else None
        known = stat and (str(path.resolve()), stat.st_size, stat.st_mtime_ns, entry["sha256"])
        if known in _verified:
            return
        if known is None or sha256_of_file(path) != entry["sha256"]:
            raise TikmixError(f"{path} was altered after writing: its SHA-256 differs. {self._remedy}")
        _verified.add(known)

    @property
    def _remedy(self) -> str:
        return f"Delete {self.folder} and run the `corpus` pipeline again."


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest; the last file of a corpus to be written."""
    write_json(folder / MANIFEST, {"version": MANIFEST_VERSION, **manifest})


def chunks_of_ids(path: Path, dtype: npt.DTypeLike, chunk: int = 1 << 22) -> Iterator[Ids]:
    """Yield the ids of a headerless token file piece by piece.

    Raises:
        TikmixError: the file's length is not a whole number of ids.
    """
    itemsize = np.dtype(dtype).itemsize
    size = path.stat().st_size
    if size == 0 or size % itemsize:
        raise TikmixError(
            f"{path} has {size} bytes, which is no whole number of {np.dtype(dtype).name} token ids. Check the "
            "source's `dtype`; a header must be cut off, and a truncated file copied again."
        )
    ids = np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
    for start in range(0, len(ids), chunk):
        yield ids[start : start + chunk]
