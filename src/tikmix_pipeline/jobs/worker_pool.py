"""A pool of worker processes that outlives the death of any of them, and what becomes of a job in whichever engine.

The pools of the standard library give up when a process is killed, as the kernel does when memory runs out. Here the
job under way is lost, its death is reported, and a new process takes the next one.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.signals import signals_deferred

Shared = TypeVar("Shared")
Job = TypeVar("Job")
Result = TypeVar("Result")

Answer = tuple[bool, Any]
"""Whether a job returned, and what; or the error that it ended in."""


@dataclass(frozen=True)
class Died:
    """A job that ended without an answer."""

    exit_code: int | None = None
    """Of its process, negative for a signal; None where nobody saw it end."""
    cause: str = ""
    """Why, where more is known than the code."""

    @property
    def reason(self) -> str:
        """Why it died, as the end of a sentence."""
        return self.cause or f"its process ended with code {self.exit_code}, as when memory runs out"


def answered(function: Callable[[Any, Any], Any], shared: Any, job: Any) -> Answer:
    """Do a job, and return what it returned or raised in a form that another process can read."""
    try:
        return True, function(shared, job)
    except TikmixError as error:
        return False, error
    except Exception:
        return False, RuntimeError(traceback.format_exc())


def received(answer: Answer) -> Any:
    """Return what a job returned.

    Raises:
        TikmixError: as raised by the job.
        RuntimeError: the job raised anything else, and the message is its traceback.
    """
    returned, value = answer
    if not returned:
        raise value
    return value


def usable_cores() -> int:
    """Return the cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def each_in_a_process(
    function: Callable[[Shared, Job], Result], shared: Shared, jobs: Sequence[Job], *, workers: int
) -> Iterator[tuple[int, Result | Died]]:
    """Yield the number of each job with what `function(shared, job)` returned, as they end.

    All processes, of which there are at most `workers` at a time, end with the iterator, whatever ends it, and with the
    process that started them; see `each_job`.

    Raises:
        TikmixError: as raised by `function`.
        RuntimeError: `function` raised anything else, and the message is its traceback; or a process could not start.
    """
    waiting = deque(enumerate(jobs))
    pool: dict[Any, _Worker] = {}
    try:
        while waiting or pool:
            # those still to report have no job yet, and will take one
            while len(pool) < min(workers, len(waiting) + sum(worker.number is not None for worker in pool.values())):
                worker = _start(function, shared)
                pool[worker.connection] = worker
            for connection in wait(list(pool)):
                worker = pool[connection]
                number, outcome = worker.number, worker.outcome()
                if waiting and not isinstance(outcome, Died):
                    worker.give(waiting.popleft())
                else:
                    pool.pop(connection).end()
                if number is not None:
                    yield number, outcome
    finally:
        for worker in pool.values():
            worker.end()


@dataclass
class _Worker:
    """A process, and the number of the job it has; none until it has reported."""

    process: SpawnProcess
    connection: Connection
    number: int | None = None

    def give(self, job: tuple[int, Any]) -> None:
        self.number, content = job
        with contextlib.suppress(ConnectionError):  # a process that has died meanwhile is found by `outcome`
            self.connection.send(content)

    def outcome(self) -> Any:
        """Receive what the job returned, or how the process died; raise what the job raised."""
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            if self.number is None:
                raise RuntimeError(
                    f"A worker process could not start (exit code {self.process.exitcode}); its own message is above. "
                    "A script that runs pipelines must do so below `if __name__ == '__main__':`."
                ) from None
            return Died(self.process.exitcode)
        return received(answer)

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _start(function: Callable[[Any, Any], Any], shared: Any) -> _Worker:
    # a forked process would inherit threads' locks, and CUDA cannot be forked at all
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function, shared), daemon=True)
    with signals_deferred():  # a process that is half told what to do complains of it on the terminal
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _work(connection: Connection, function: Callable[[Any, Any], Any], shared: Any) -> None:
    """Report, then do one job after the other until the process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    end_with_parent()
    with contextlib.suppress(EOFError, ConnectionError):  # who started it is gone, and this process ends in a moment
        connection.send((True, None))
        while True:
            connection.send(answered(function, shared, connection.recv()))


def end_with_parent() -> None:
    """End this process when the one that started it, by `multiprocessing`, does; otherwise do nothing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
