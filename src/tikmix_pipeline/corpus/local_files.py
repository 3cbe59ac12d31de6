"""The user's own files: which ones a path or glob names, which of them cannot be read, and what is lost with those.

A path that exists is that path, whatever characters it holds; only what does not exist is a pattern. What is matched
and cannot be read (a link to nowhere, no permission, a pointer of Git LFS, a file that breaks off) is an error or,
where the corpus says so, is skipped and counted. So are records whose text is null.
"""

import contextlib
import glob
import itertools
import logging
import math
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any, TypeVar

from tikmix_pipeline.corpus.text import PACKED, UnreadableError, text_of
from tikmix_pipeline.errors import TikmixError

_T = TypeVar("_T")

_POINTERS = {b"version https://git-lfs.github.com/spec/": "Git LFS", b"/annex/objects/": "git-annex"}
_LARGEST_POINTER_BYTES = 1024
_HINTS = {
    "://": " It is an address, and only what is on this machine is read: copy it here first.",
    "$": " Variables are not read in a path: write it whole, or as ${oc.env:NAME} in a parameter file.",
    "{": " Braces stand for themselves: make a source of each alternative.",
    "\\": " Folders are parted by `/`.",
}
_NAMED_AT_MOST = 5
_STANDARD_ERRORS = 3

_logger = logging.getLogger(__name__)


def matching_files(pattern: str, root: Path) -> list[Path]:
    """List the files that a path or glob names, sorted; among them may be what cannot be read.

    Raises:
        TikmixError: there is no such file, or it names folders with files of their own besides.
    """
    found = _matches(pattern, root)
    folders = [path for path in found if path.is_dir()]
    paths = sorted(set(found).difference(folders))
    if not paths:
        hint = _hint(pattern, folders, root)
        raise TikmixError(f"no file matches {pattern!r} in {root}. Check the path; `**` stands for any folders.{hint}")
    passed_over = [] if "**" in PurePath(pattern).parts else [folder for folder in folders if _has_files(folder)]
    if passed_over:
        raise TikmixError(
            f"{pattern!r} names folders beside files, and what is in them would not be read: "
            f"{', '.join(map(shown, passed_over[:_NAMED_AT_MOST]))}. Write `**` for any folders, as in x/**/*.jsonl, "
            "make a source of each, or write a pattern that files alone match."
        )
    return paths


def _has_files(folder: Path) -> bool:
    return any(not path.name.startswith(".") and path.is_file() for path in folder.rglob("*"))


def _hint(pattern: str, folders: Sequence[Path], root: Path) -> str:
    """Say why a path or glob may name no file, in a sentence behind another one."""
    if folders:
        return f" It matches folders alone: add /* or /** for the files in {shown(folders[0])}."
    if any(_matches(unicodedata.normalize(form, pattern), root) for form in ("NFC", "NFD")):
        return " There is one of that name in another Unicode form: copy the name from a listing of its folder."
    if pattern.startswith("~"):
        return " `~` stands for no folder here: write the whole path."
    return next((hint for sign, hint in _HINTS.items() if sign in pattern), "")


def shown(path: Path) -> str:
    """Return a path as text, which UTF-8 can write; bytes of a name that are no UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def files_below(name: str, root: Path) -> list[Path]:
    """Return the local files that a path or glob of a Hugging Face source stands for, those of folders included."""
    found = [path for match in _matches(name, root) for path in (match.rglob("*") if match.is_dir() else [match])]
    return sorted(path for path in set(found) if not path.is_dir())


def _matches(pattern: str, root: Path) -> list[Path]:
    literal = root / pattern
    if os.path.lexists(literal):
        return [literal]
    if any("**" in part and part != "**" for part in PurePath(pattern).parts):
        raise TikmixError(
            f"{pattern!r}: `**` stands for any folders only where it is alone between slashes, as in x/**/*.jsonl."
        )
    start = Path(literal.anchor) if Path(pattern).is_absolute() else root
    return sorted(set(_expanded(start, PurePath(pattern).parts[Path(pattern).is_absolute() :])))


def _expanded(start: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Yield what a pattern stands for, some of it more than once."""
    before = list(itertools.takewhile(lambda part: part != "**", parts))
    found = map(Path, glob.glob(os.path.join(glob.escape(str(start)), *before)))
    if len(before) == len(parts):
        yield from found
        return
    for folder in found:
        for below in _folders(folder):
            yield from _expanded(below, parts[len(before) + 1 :] or "*")


def _folders(top: Path) -> Iterator[Path]:
    """Yield a folder and all below it but hidden ones, each once: for `glob`, two links to a parent have no end.

    Raises:
        TikmixError: one cannot be listed.
    """
    seen: set[tuple[int, int]] = set()
    for name, folders, _ in os.walk(top, onerror=_raise_unlisted, followlinks=True) if top.is_dir() else ():
        status = os.stat(name)
        identity = status.st_dev, status.st_ino
        folders[:] = [] if identity in seen else sorted(folder for folder in folders if not folder.startswith("."))
        if identity not in seen:
            seen.add(identity)
            yield Path(name)


def _raise_unlisted(error: OSError) -> None:
    raise TikmixError(f"the folder {error.filename} cannot be listed ({error.strerror}). Give permission, or move it.")


def chosen_names(names: Iterable[str], pattern: str, exclude: Sequence[str] = ()) -> set[str]:
    """Return those of an archive's names that a name or glob stands for; `*` matches slashes too."""
    existing = set(names)

    def matching(pattern: str) -> set[str]:
        return {pattern} if pattern in existing else {name for name in existing if fnmatchcase(name, pattern)}

    return matching(pattern).difference(*map(matching, exclude))


def stat_or_missing(path: Path) -> list[str | int]:
    """Return name, size and modification time (ns) of a file, and -1 for both of one that cannot be looked up."""
    try:
        status = path.stat()
    except OSError:
        return [path.name, -1, -1]
    return [path.name, status.st_size, status.st_mtime_ns]


def size_on_disk(path: Path) -> int:
    """Return a file's bytes; none of one that cannot be looked up."""
    return max(0, int(stat_or_missing(path)[1]))


def why_unreadable(path: Path) -> str | None:
    """Return what is known to be wrong with a file before it is read; small ones are looked into, for pointers."""
    try:
        status = path.stat()
        if (reason := _why_not_opened(path, status)) or status.st_size > _LARGEST_POINTER_BYTES:
            return reason
        with path.open("rb") as stream:
            head = stream.read(_LARGEST_POINTER_BYTES)
    except OSError as error:
        if path.is_symlink() and not path.exists():
            return f"it is a link to {os.readlink(path)}, which is not there"
        return error.strerror or str(error)
    pointer = next((system for beginning, system in _POINTERS.items() if head.startswith(beginning)), None)
    return pointer and f"it is a pointer of {pointer} in place of the file itself, which `git` has yet to fetch"


def _why_not_opened(path: Path, status: os.stat_result) -> str | None:
    if shown(path) != str(path):
        return "its name is no UTF-8: rename it"
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if not status.st_size and path.suffix.lower() in PACKED:
        return "it is of no bytes, which no compressed file is: a copy or download that failed"
    return None if os.access(path, os.R_OK) else "there is no permission to read it"


@dataclass
class Reading:
    """How the files of one domain or task are read, and what was found on the way."""

    skips_unreadable: bool = False
    of_domain: bool = False
    """Whether `corpus.on_unreadable` and `corpus.max_null_share` are about it."""
    files: set[Path] = field(default_factory=set)
    """Those matched."""
    lost: dict[Path, str] = field(default_factory=dict)
    """Why each of those skipped could not be read; of one that breaks off, what came before has been read."""
    records: int = 0
    nulls: int = 0
    """Records whose text is null, which count as empty."""

    def matching(self, pattern: str, root: Path) -> list[Path]:
        """List the files that a path or glob names and that can be read, as far as is known before.

        Raises:
            TikmixError: there is none, or some cannot be read and are not to be skipped; it names them.
        """
        return self.readable(matching_files(pattern, root), repr(pattern))

    def readable(self, paths: Sequence[Path], source: str) -> list[Path]:
        """Return those of the files of a source that can be read."""
        reasons = {path: reason for path in paths if (reason := why_unreadable(path)) is not None}
        self.files.update(paths)
        if reasons and (not self.skips_unreadable or len(reasons) == len(paths)):
            skip = self._how_to_skip() if len(reasons) < len(paths) else ""
            raise TikmixError(
                f"{len(reasons)} of the {len(paths)} files of {source} cannot be read: {_named(reasons)}. Mend or "
                f"remove them.{skip}"
            )
        self.lost |= reasons
        return [path for path in paths if path not in reasons]

    def up_to_damage(self, path: Path, read: Iterator[_T]) -> Iterator[_T]:
        """Yield what is read of a file before it breaks off; that it does is an error, or is noted."""
        with self.noting(path):
            yield from read

    @contextlib.contextmanager
    def noting(self, path: Path) -> Iterator[None]:
        """Note that a file turned out to be unreadable in the body, where those are skipped; else raise that it did."""
        try:
            yield
        except UnreadableError as error:
            if not self.skips_unreadable:
                raise TikmixError(f"{error}{self._how_to_skip()}") from error
            self.lost[path] = str(error)

    def _how_to_skip(self) -> str:
        return " Or set corpus.on_unreadable to `skip`." if self.of_domain else ""

    def text_of(self, record: Any, name: str, where: str) -> str:
        """Return the text in a record's field, which is empty where that is null; for errors see `text.text_of`."""
        self.records += 1
        if isinstance(record, dict) and name in record and record[name] is None:
            self.nulls += 1
            return ""
        return text_of(record, name, where)

    @property
    def lost_share(self) -> float:
        """The share of the bytes that was lost, at most: files that break off count in full.

        A file of unknown size counts as much as those of known size do on average.
        """
        known = {path: int(size) for path in self.files if (size := stat_or_missing(path)[1]) != -1}
        usual = sum(known.values()) / len(known) if known else 1.0
        total = sum(known.get(path, usual) for path in self.files)
        return sum(known.get(path, usual) for path in self.lost) / total if total else 0.0

    def finish(self, *, max_null_share: float, is_sample: bool) -> None:
        """Say what was lost. Of a sample, the share of nulls may be above the limit by three standard errors.

        Raises:
            TikmixError: more records than `max_null_share` of them have no text.
        """
        if self.lost:
            _logger.warning(
                "%d of %d files could not be read, up to %.3g %% of the bytes (corpus.on_unreadable): %s",
                *(len(self.lost), len(self.files), 100 * self.lost_share, _named(self.lost)),
            )
        error = math.sqrt(self.records * max_null_share * (1 - max_null_share)) if is_sample else 0.0
        if self.nulls > max_null_share * self.records + _STANDARD_ERRORS * error:
            raise TikmixError(
                f"the text of {self.nulls} of {self.records} records that were read is null, more than "
                f"corpus.max_null_share = {max_null_share:g}. Check the source's `field`, or raise that."
            )
        if self.nulls:
            _logger.warning("left out %d of %d records, whose text is null", self.nulls, self.records)


def _named(reasons: dict[Path, str]) -> str:
    named = [f"{shown(path)} ({reason})" for path, reason in sorted(reasons.items())]
    more = f" and {len(named) - _NAMED_AT_MOST} more" if len(named) > _NAMED_AT_MOST else ""
    return ", ".join(named[:_NAMED_AT_MOST]) + more
