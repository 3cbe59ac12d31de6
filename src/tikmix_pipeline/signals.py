"""The signals that end runs, and what they must not come into the middle of."""

import contextlib
import signal
import threading
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what Slurm and Kubernetes end jobs by, and a closed terminal."""


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Answer the signals that end runs right after the block, if they are answered in Python.

    Other threads than the main one are never interrupted, and nothing is done in them.
    """
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    answered_here = [number for number in ENDING if is_main and callable(signal.getsignal(number))]
    handlers = {number: signal.signal(number, lambda number, _: received.append(number)) for number in answered_here}
    try:
        yield
    finally:
        for of_one, handler in handlers.items():
            signal.signal(of_one, handler)
        for number in received[:1]:
            signal.raise_signal(number)
