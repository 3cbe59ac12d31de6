"""Writing files so that a reader never sees half of one.

Whatever is written goes to a temporary sibling first and is renamed when complete, so a killed run leaves either the
old artifact or the new one.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError

_CHUNK_BYTES = 1 << 20
_SAMPLED_BLOCKS = 4
_TROUBLES = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the quota on this disk is used up: free some space",
    errno.EROFS: "the disk can only be read: put it on one that can be written to",
    errno.EACCES: "permission denied: see who may read and write there",
    errno.EIO: "the disk reports an error (EIO): see whether it is whole and still there",
}
_RUST_ERROR = re.compile(r"(?:os error|Os \{ code:) (\d+)")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write a file or folder to, then rename it over `path`.

    Nothing is left behind when the body raises, and what a killed process left behind is cleared by the next one. An
    existing folder is moved aside before the new one takes its place.

    Raises:
        TikmixError: the disk is full, fails, or may not be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        yield temporary
        if path.is_dir():
            os.replace(path, old)
        os.replace(temporary, path)
    except Exception as error:
        trouble = disk_trouble(error, path)
        if trouble is None:
            raise
        raise TikmixError(trouble) from error
    finally:
        with contextlib.suppress(OSError):  # the next one clears what a failing disk keeps
            remove(temporary)
            remove(old)


def disk_trouble(error: BaseException, path: Path | None = None) -> str | None:
    """Return what is the matter with the disk and what to do, where an error is about that; `path` is being written."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _RUST_ERROR.search(str(error))):
        number = int(found[1])
    if number is None and isinstance(error, OSError) and "requested and" in str(error):  # NumPy, of what was cut short
        number = errno.ENOSPC
    if number not in _TROUBLES:
        return None
    named = getattr(error, "filename", None)
    is_temporary = path is not None and f".{path.name}.{os.getpid()}.tmp" in str(named)
    place = path if named is None or is_temporary else named
    start = f"{place}: " if place is not None else "While files were written: "
    return f"{start}{_TROUBLES[number]}, and run the same command again. What is finished is kept."


def _clear_leftovers(path: Path) -> None:
    """Remove what dead processes, or this one, left beside `path`; a folder that was moved aside is put back."""
    for sibling, was_moved in _leftovers(path):
        if was_moved and not path.exists():
            os.replace(sibling, path)
        else:
            remove(sibling)


def _leftovers(path: Path) -> list[tuple[Path, bool]]:
    """List what dead processes, or this one, left beside `path`, and whether it was moved aside.

    What stood in for a temporary sibling itself (a checkpoint that is written into one) is among it.
    """
    own = rf"\.{re.escape(path.name)}\.(\d+)\.(tmp|old)"
    pattern, within = re.compile(own), re.compile(rf"\.{own}\.\d+\.(tmp|old)")
    found = []
    for sibling in path.parent.iterdir() if path.parent.is_dir() else ():
        match = pattern.fullmatch(sibling.name) or within.fullmatch(sibling.name)
        if match is not None and not _is_other_process(int(match[1])):
            found.append((sibling, match.re is pattern and match[2] == "old"))
    return found


def _is_other_process(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Delete a file or folder that will not be written again, and what a failing disk kept beside it."""
    remove(path)
    for sibling, _ in _leftovers(path):
        remove(sibling)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; for one that is the user's see `read_json_object`.

    Raises:
        TikmixError: the file is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TikmixError(f"{path} is not valid JSON ({error}). Delete it and run its stage again.") from error


def read_json_object(path: Path, remedy: str, *, source: str = "") -> dict[str, Any]:
    """Read a JSON object that somebody else has written, such as a file of a checkpoint.

    A mark of byte order in front, which some editors write, is passed over.

    Args:
        path: of the file.
        remedy: what to do about one that cannot be read, a sentence.
        source: what messages begin with, a parameter that names the file.

    Raises:
        TikmixError: it cannot be read, is not valid JSON or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise TikmixError(f"{source}{path} cannot be read as JSON ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise TikmixError(f"{source}{path} holds {type(content).__name__}, expected an object. {remedy}")
    return content


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def stat_signature(files: Iterable[Path]) -> list[list[str | int]]:
    """Return name, size and modification time (ns) of files: what tells, without reading them, that they changed."""
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def sampled_signature(files: Iterable[Path]) -> list[list[str | int]]:
    """Return name, size and the SHA-256 of samples of files: what tells large ones apart whenever they were copied.

    Read are blocks at both ends and evenly between; a small file is read whole.
    """
    stats = [(file, file.stat()) for file in files]
    return [[file.name, stat.st_size, _sampled_digest(file, stat.st_size, stat.st_mtime_ns)] for file, stat in stats]


@lru_cache(maxsize=4096)
def _sampled_digest(file: Path, size: int, modified: int) -> str:
    """Read a file once for each state it is in, which `size` and `modified` tell apart."""
    del modified
    digest = hashlib.sha256()
    last = max(0, size - _CHUNK_BYTES)
    with file.open("rb") as stream:
        for start in sorted({last * block // (_SAMPLED_BLOCKS - 1) for block in range(_SAMPLED_BLOCKS)}):
            stream.seek(start)
            digest.update(stream.read(_CHUNK_BYTES))
    return digest.hexdigest()


def folder_signature(folder: Path) -> list[list[str | int]]:
    """Return the signature of all files of a folder, those of its subfolders left out."""
    return stat_signature(sorted(file for file in folder.glob("*") if file.is_file()))


def require_space(
    folder: Path, needed_bytes: int, purpose: str, remedy: str = "make the corpus smaller (corpus.max_megabytes)"
) -> None:
    """Refuse to start writing what the disk cannot hold.

    Args:
        folder: where it is to be written.
        needed_bytes: how much it takes.
        purpose: what it is, in the plural.
        remedy: what the user may do instead of freeing space.

    Raises:
        TikmixError: fewer bytes are free where `folder` is or will be.
    """
    free_bytes = shutil.disk_usage(existing_parent(folder)).free
    if free_bytes < needed_bytes:
        raise TikmixError(
            f"{purpose} need {needed_bytes / 1e6:.0f} MB in {folder}, but only {free_bytes / 1e6:.0f} MB are free "
            f"there. Free some space, or {remedy}."
        )


def existing_parent(path: Path) -> Path:
    """Return the path, or the nearest of its parents that exists."""
    return next(parent for parent in [path, *path.parents] if parent.exists())
