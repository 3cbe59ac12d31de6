"""What files hold, so that one that was altered after it was written is never used.

A file is described when it is written, by its size and the SHA-256 of all its bytes. It is compared twice, and read no
more often than that in a process, as long as its size and its modification time stay the same:

- *at a look*, at every start: files of up to `DIGESTED_BYTES` whole; of larger ones the size and four blocks of 1 MiB;
- *before it is used*: whole, however large it is. Several files are read at a time, about as fast as the disk gives
  them; what loads weights or gradients reads them anyway.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from tikmix_pipeline.files import sampled_signature, sha256_of_file

DIGESTED_BYTES = 64_000_000
"""Larger files (weights of large models) are looked at in samples: reading them at every start would take minutes."""

Description = list[int | str]
"""Size and digest of a file, of a large one the digest of samples too; earlier versions wrote a large one's size alone.
Nothing fits an empty one."""

Content = Mapping[str, Description]
"""What every file of an artifact holds, by its path within it."""


def describe(artifact: Path, digested_bytes: int = DIGESTED_BYTES) -> dict[str, Description]:
    """Read all files of an artifact, which is a file or a folder, and say what they hold.

    Of those that have more than `digested_bytes` samples are noted too, and none if that is negative.
    """
    files = _files(artifact)
    described: dict[str, Description] = {}
    for (name, file), digest in zip(files.items(), _digests(list(files.values())), strict=True):
        size = file.stat().st_size
        described[name] = [size, digest, _samples(file)] if 0 <= digested_bytes < size else [size, digest]
    return described


def altered_at_a_look(artifact: Path, content: Content, digested_bytes: int) -> list[str]:
    """Return which files are others than was described, as far as a look tells, new and missing ones included.

    Args:
        artifact: a file or a folder.
        content: what `describe` returned.
        digested_bytes: what `describe` was told; files are held to their sizes alone where it is negative.
    """
    files = _files(artifact)
    changed = [name for name in files.keys() & content.keys() if not _looks(files[name], content[name], digested_bytes)]
    return sorted([*changed, *(files.keys() ^ content.keys())])


def _looks(file: Path, written: Description, digested_bytes: int) -> bool:
    """Tell whether a file looks as it was described."""
    size = file.stat().st_size
    if written[:1] != [size]:
        return False
    if size <= digested_bytes:
        return written[1:2] == [_digest_of(file)]
    samples = written[2:]
    return not samples or samples == [_samples(file)]


def altered(artifact: Path, content: Content) -> list[str]:
    """Return which of the files described are missing or others, by every byte; files that came later do not count."""
    files = _files(artifact)
    there = [name for name in content if name in files and content[name][:1] == [files[name].stat().st_size]]
    digests = dict(zip(there, _digests([files[name] for name in there]), strict=True))
    # of a large file earlier versions noted the size alone
    unaltered = {name for name in there if content[name][1:2] in ([], [digests[name]])}
    return sorted(content.keys() - unaltered)


def _files(artifact: Path) -> dict[str, Path]:
    if not artifact.is_dir():
        return {artifact.name: artifact} if artifact.is_file() else {}
    files = (file for file in sorted(artifact.rglob("*")) if file.is_file())
    return {file.relative_to(artifact).as_posix(): file for file in files}


def _digests(files: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of files, of which several are read at a time: hashing lets other threads run."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_digest_of, files))


def _digest_of(file: Path) -> str:
    stat = file.stat()
    return _digest(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(file: Path, size: int, modified: int) -> str:
    """Read a file once for each state it is in, which `size` and `modified` tell apart."""
    del size, modified
    return sha256_of_file(file)


def _samples(file: Path) -> str:
    return str(sampled_signature([file])[0][2])
