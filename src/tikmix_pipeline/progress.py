"""Progress bars: every long step shows its rate and the time left, and a run which of its steps that is."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_LOG_SECONDS = 10.0
_TERMINAL_SECONDS = 0.5
_LOG_COLUMNS = 100
# shorter than tqdm's own, which leaves no room for a bar in 80 columns
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining} left, {rate_fmt}{postfix}]"
_FORMAT_OF_PARTS = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"

# its default lock holds a semaphore of the system, which a process that is killed leaves behind
tqdm.set_lock(threading.RLock())

_silent = ContextVar("silent", default=False)
_around: "ContextVar[_Bar | None]" = ContextVar("around", default=None)
_step = {"text": ""}
"""Of the process: threads that a step starts belong to it, too."""


class _Bar(tqdm):  # type: ignore[misc]  # it has no types
    """A bar that may stand for the parts of a step, of which one is under way."""

    part = ""

    def begin(self, part: str, number: int, count: int) -> None:
        """Show which part is under way, and how many there are."""
        self.part = f"{part} {number}/{count}"
        # a log gets it with the bar's next line
        self.set_postfix_str(self.part, refresh=sys.stderr.isatty())


class _PartBar(tqdm):  # type: ignore[misc]  # it has no types
    """What a part of a step counts: it is shown in the bar of the step."""

    def __init__(self, around: _Bar, total: float | None) -> None:
        super().__init__(total=total, disable=True)
        self.total, self._around, self._drawn = total, around, time.monotonic()

    def update(self, n: float | None = 1) -> bool | None:
        """Count, and show the share that is done, now and then."""
        self.n += n or 0
        now = time.monotonic()
        if now - self._drawn < self._around.mininterval:
            return False
        self._drawn = now
        done = f"{self.n / self.total:.0%}" if self.total else f"{self.n:,.0f}"
        self._around.set_postfix_str(f"{self._around.part}, {done}")
        return True


def at_step(step: str) -> None:
    """Begin the bars from here on with the step of the run that they belong to; with nothing for an empty text."""
    _step["text"] = step


def progress_bar(description: str, total: int | None, unit: str) -> "tqdm[Any]":
    """Return a bar that counts `unit`s on standard error; where that is a log, it is drawn rarely.

    Inside of `one_bar` it moves that one instead.
    """
    around = _around.get()
    return _bar(description, total, unit, _FORMAT) if around is None else _PartBar(around, total)


@contextlib.contextmanager
def one_bar(description: str, total: int | None, unit: str) -> Iterator[_Bar]:
    """Draw one bar for all parts of a step, also where each of them would have one."""
    with _bar(description, total, unit, _FORMAT_OF_PARTS) as bar:
        token = _around.set(None if bar.disable else bar)
        try:
            yield bar
        finally:
            bar.set_postfix_str("", refresh=False)
            _around.reset(token)


def _bar(description: str, total: int | None, unit: str, form: str) -> _Bar:
    on_terminal = sys.stderr.isatty()
    return _Bar(
        total=total,
        desc=": ".join(filter(None, (_step["text"], description))),
        unit=unit,
        unit_scale=total is None or total >= 1000,
        dynamic_ncols=on_terminal,
        ncols=None if on_terminal else _LOG_COLUMNS,
        mininterval=_TERMINAL_SECONDS if on_terminal else _LOG_SECONDS,
        bar_format=None if total is None else form,
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
