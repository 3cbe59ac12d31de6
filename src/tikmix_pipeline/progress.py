"""Progress bars: every long step shows its rate and the time left."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_LOG_SECONDS = 10.0
_LOG_COLUMNS = 100

# its default lock holds a semaphore of the system, which a process that is killed leaves behind
tqdm.set_lock(threading.RLock())

_silent = ContextVar("silent", default=False)


def progress_bar(description: str, total: int | None, unit: str) -> "tqdm[Any]":
    """Return a bar that counts `unit`s on standard error; where that is a log, it is drawn rarely."""
    on_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=total is None or total >= 1000,
        dynamic_ncols=on_terminal,
        ncols=None if on_terminal else _LOG_COLUMNS,
        mininterval=0.5 if on_terminal else _LOG_SECONDS,
        disable=_silent.get(),
    )


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Draw no bars inside, for the parts of a step that has one bar for all of them."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)
