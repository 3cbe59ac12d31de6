"""Locks that keep two runs apart: held on a file by `flock`, free again when their process ends, however it ends.

On a folder that several hosts share they are as good as the file system: NFS passes them on, Lustre does with
`-o flock`, others hold them on one host alone or not at all. A lock's file says who holds it, and is emptied when the
lock is given free. So whoever gets a lock that another host has not given free is told: either that run was killed, or
this file system does not pass locks on and the run is at work there.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tikmix_pipeline.errors import TikmixError

_LOG = logging.getLogger(__name__)
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


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
        if not _taken(file, what, wait=False):
            process, _, host = _holder(file).partition(" ")
            elsewhere = f" on {host}" if host and host != socket.gethostname() else ""
            raise TikmixError(
                f"Another run (process {process}{elsewhere}) is at work on {what}. {way_out} (--params), or wait for "
                "it to end."
            )
        _warn_of_other_host(file, what)
        file.truncate(0)
        file.write(f"{os.getpid()} {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a full disk, or a folder that is gone
                file.truncate(0)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for a lock and hold it, for what is done in a moment and by one process at a time."""
    with path.open("a+", encoding="utf-8") as file:
        _taken(file, str(path), wait=True)
        yield


def _taken(file: IO[str], what: str, *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _LOG.warning(
            "%s cannot be locked, since the file system of %s has no locks (%s): see to it that no other run is at "
            "work there.",
            *(what, file.name, error.strerror),
        )
    return True


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()


def _warn_of_other_host(file: IO[str], what: str) -> None:
    process, _, host = _holder(file).partition(" ")
    if host and host != socket.gethostname():
        _LOG.warning(
            "Process %s on %s has not given %s free. Either it was killed, and all is well, or the file system of %s "
            "does not pass locks on from host to host: see to it that it is not at work any more.",
            *(process, host, what, file.name),
        )
