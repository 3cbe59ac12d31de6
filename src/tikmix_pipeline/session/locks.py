"""Locks that keep two runs apart: held on a file by `flock`, free again when their process ends, however it ends.

On a folder that several hosts share they are as good as the file system: NFS passes them on, Lustre does with
`-o flock`, others hold them on one host alone or not at all. So a lock's file says who holds it, gets a new time every
few seconds while it is held, and is emptied when the lock is given free. Whoever gets a lock that another host has not
given free watches that time for a while: if it changes, the run is at work there, whatever the file system says of
locks; if not, that run was killed. And a run that finds another's name in the file of its lock, since both began in the
same moment or it was suspended for long, ends itself.
"""

import contextlib
import errno
import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple

from tikmix_pipeline.errors import TikmixError

_LOG = logging.getLogger(__name__)
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}

BEAT = 5.0
"""Seconds between two signs of life of who holds a lock."""
WATCH = 20.0
"""Seconds without a sign of life after which a run on another host counts as killed."""


class _Holder(NamedTuple):
    """Who has written itself into a lock's file: `<process> <host>`; nobody, where that is empty."""

    process: str
    host: str

    @classmethod
    def this(cls) -> "_Holder":
        return cls(str(os.getpid()), socket.gethostname())

    @classmethod
    def written(cls, text: str) -> "_Holder":
        process, _, host = text.strip().partition(" ")
        return cls(process, host)

    @property
    def is_elsewhere(self) -> bool:
        return self.host not in ("", socket.gethostname())

    def __str__(self) -> str:
        return f"{self.process} {self.host}"


@contextlib.contextmanager
def locked(path: Path, what: str, way_out: str) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: of its file, which stays; its folder is made if need be.
        what: nobody else may work on meanwhile.
        way_out: what a user may do who cannot wait.

    Raises:
        TikmixError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        lock = _taken(file, what, wait=False)
        if lock == "refused" or _is_alive(path, _holder(file), what, is_locked=lock == "held"):
            holder = _holder(file)
            elsewhere = f" on {holder.host}" if holder.is_elsewhere else ""
            raise TikmixError(
                f"Another run (process {holder.process}{elsewhere}) is at work on {what}. {way_out} (--params), or "
                "wait for it to end."
            )
        this = _Holder.this()
        file.truncate(0)
        file.write(str(this))
        file.flush()
        try:
            with _signs_of_life(path, this, what):
                yield
        finally:
            with contextlib.suppress(OSError):  # a full disk, or a folder that is gone
                if _holder(file) == this:
                    file.truncate(0)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for a lock and hold it, for what is done in a moment and by one process at a time."""
    with path.open("a+", encoding="utf-8") as file:
        _taken(file, str(path), wait=True)
        yield


def _taken(file: IO[str], what: str, *, wait: bool) -> Literal["held", "refused", "unsupported"]:
    """Lock a file; return how that went."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return "refused"
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _LOG.warning(
            "%s cannot be locked, since the file system of %s has no locks (%s): see to it that no other run is at "
            "work there.",
            *(what, file.name, error.strerror),
        )
        return "unsupported"
    return "held"


def _holder(file: IO[str]) -> _Holder:
    file.seek(0)
    return _Holder.written(file.read())


def _is_alive(path: Path, holder: _Holder, what: str, *, is_locked: bool) -> bool:
    """Return whether a run that has not given a lock free shows a sign of life; a real lock of this host needs none."""
    if not holder.host or (is_locked and not holder.is_elsewhere):
        return False
    _LOG.warning("Process %s on %s has not given %s free: watching for %g s whether it is alive.", *holder, what, WATCH)
    before, deadline = _time_of(path), time.monotonic() + WATCH
    while time.monotonic() < deadline:
        time.sleep(WATCH / 20)
        if _time_of(path) != before:
            return True
    _LOG.warning("Process %s on %s shows no sign of life: it was killed, and this run goes on in its place.", *holder)
    return False


def _time_of(path: Path) -> int:
    """Return when a file was changed; opening it has a network file system ask its server."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns


@contextlib.contextmanager
def _signs_of_life(path: Path, this: _Holder, what: str) -> Iterator[None]:
    """Give a lock's file a new time every few seconds; end this process by SIGTERM if another has taken it."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(BEAT):
            with contextlib.suppress(OSError):  # a full disk, or a folder that is gone
                now = _Holder.written(path.read_text(encoding="utf-8"))
                if now.process and now != this:
                    _LOG.error("Process %s on %s is at work on %s too: this run ends.", *now, what)
                    os.kill(os.getpid(), signal.SIGTERM)  # to the main thread, even where it waits
                    return
                os.utime(path)

    thread = threading.Thread(target=beat, name=f"signs of life of {path.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
