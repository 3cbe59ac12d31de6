"""Jobs on a Ray cluster. This file alone imports Ray, and only where `engine.kind` is `ray`.

The cluster runs already, or is started on this machine and ends with the jobs. A job is one Ray task: Ray finds it a
place, starts processes and keeps them for the next. Lost jobs are begun again here and not by Ray, whose own retries
never end where memory runs out, so that it can be said which job was lost and why.

A node works only with the same code and libraries, so that its results may stand beside those of this machine. A job
sees what it would see in a process of this machine: the shared objects as copies of its own (Ray hands out arrays
that cannot be written to), the same number of threads for what sets none itself, and the same working folder.
"""

import contextlib
import functools
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.worker_pool import Answer, Died, answered, received, usable_cores
from tikmix_pipeline.parameters.training import EngineParameters
from tikmix_pipeline.store.code import installed

_LOG = logging.getLogger(__name__)

_GRACE_SECONDS = 10.0
"""What jobs have to end in order, as an arm that closes its run in the store."""
_ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class _Work:
    """What all jobs have in common."""

    function: Callable[[Any, Any], Any]
    shared: Any
    folder: Path
    folders: Sequence[Path]
    code: Mapping[str, str]


def each_on_ray(
    function: Callable[[Any, Any], Any],
    shared: Any,
    jobs: Sequence[Any],
    *,
    engine: EngineParameters,
    gpus: float,
    at_once: int,
    folders: Sequence[Path],
) -> Iterator[tuple[int, Any]]:
    """Yield the number of each job with what it returned, or `Died`, as they end; see `each_job`.

    Each job is given so many GPUs, and Ray has at most `at_once` jobs at a time.
    """
    ray = _ray()
    with _cluster(ray, engine):
        _tell_room(ray, engine, gpus)
        work = _Work(function, shared, Path.cwd(), tuple(folders), installed())
        content = ray.put(pickle.dumps(work))
        task = ray.remote(_answer).options(
            num_cpus=_number(engine.cpus_per_job),
            num_gpus=_number(gpus),
            max_retries=0,
            runtime_env={"env_vars": _environment(engine)},
        )
        yield from _each(ray, lambda job: task.remote(content, job), jobs, engine, at_once)


def _each(
    ray: Any, begin: Callable[[Any], Any], jobs: Sequence[Any], engine: EngineParameters, at_once: int
) -> Iterator[tuple[int, Any]]:
    """Begin jobs, and lost ones again, and yield what they end in."""
    waiting = deque((number, 0) for number in range(len(jobs)))
    running: dict[Any, tuple[int, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, losses = waiting.popleft()
                running[begin(jobs[number])] = number, losses
            [ended], _ = ray.wait(list(running), num_returns=1)
            number, losses = running.pop(ended)
            outcome = _outcome(ray, ended, losses + 1)
            if isinstance(outcome, Died) and losses < engine.retries:
                _LOG.warning("Job %d of %d is begun again: %s.", number + 1, len(jobs), outcome.reason)
                waiting.append((number, losses + 1))
            else:
                yield number, outcome
    finally:
        _end(ray, list(running))


def _outcome(ray: Any, ended: Any, losses: int) -> Any:
    """Return what a job returned, or how it was lost for the so many-th time; raise what it raised."""
    errors = ray.exceptions
    lost = {
        errors.OutOfMemoryError: "its node ran out of memory",
        errors.WorkerCrashedError: "its process ended, as when memory runs out",
        errors.NodeDiedError: "its node died",
        errors.LocalRayletDiedError: "its node died",
        errors.ObjectLostError: "its result was lost with a node",
    }
    try:
        return received(ray.get(ended))
    except tuple(lost) as error:
        cause = next(cause for kind, cause in lost.items() if isinstance(error, kind))
        return Died(cause=cause if losses == 1 else f"{cause} (lost {losses} times)")
    except errors.RayError as error:
        raise TikmixError(
            f"engine.kind=ray: a job could not be run on the cluster. {error}\nEvery node needs the same Python with "
            "this package installed; engine.kind=local does without a cluster."
        ) from error


def _answer(content: bytes, job: Any) -> Answer:
    """Do a job on the node that Ray has found for it."""
    return answered(_do, content, job)


def _do(content: bytes, job: Any) -> Any:
    work = _unpacked(content)
    return work.function(work.shared, job)


@functools.lru_cache(maxsize=1)
def _unpacked(content: bytes) -> _Work:
    """Read what all jobs have in common, once per process."""
    work: _Work = pickle.loads(content)  # noqa: S301 (sent by `each_on_ray`)
    require_same(work.code, work.folders)
    with contextlib.suppress(OSError):
        os.chdir(work.folder)
    return work


def _end(ray: Any, running: Sequence[Any]) -> None:
    """End jobs as Ctrl-C would, and by force those that take too long over it."""
    if not running:
        return
    with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
        for job in running:
            ray.cancel(job)
        _, stubborn = ray.wait(list(running), num_returns=len(running), timeout=_GRACE_SECONDS)
        for job in stubborn:
            ray.cancel(job, force=True)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.exceptions

    return ray


@contextlib.contextmanager
def _cluster(ray: Any, engine: EngineParameters) -> Iterator[None]:
    """Join a cluster, or start one on this machine; leave or end it afterwards."""
    if ray.is_initialized():  # by a program that uses this package: it is that program's to end
        yield
        return
    try:
        with _signals_kept():
            _join(ray, engine)
        yield
    finally:
        ray.shutdown()


def _join(ray: Any, engine: EngineParameters) -> None:
    own = {} if engine.address else {"num_cpus": usable_cores(), "include_dashboard": False}
    try:
        _require_answer(engine.address or "")
        # "local" and not None, which would join the cluster that the variable RAY_ADDRESS names
        ray.init(address=engine.address or "local", logging_level=logging.WARNING, log_to_driver=False, **own)
    except (OSError, RuntimeError, ValueError, AssertionError, ray.exceptions.RayError) as error:
        tried = f"no cluster could be joined at {engine.address}" if engine.address else "no cluster could be started"
        raise TikmixError(
            f"engine.address: {tried}. {error}\nStart one with `ray start --head` and give its address, let null start "
            "one on this machine, or set engine.kind=local. A cluster that asks for a token is silent without it (docs/"
            "scaling.md)."
        ) from error


def _require_answer(address: str) -> None:
    """Refuse an address that nobody listens at, which Ray would wait for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Leave SIGTERM what it was: Ray would make it an abort with a dump. Jobs end with this process in any case."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell_room(ray: Any, engine: EngineParameters, gpus: float) -> None:
    """Say what the cluster has, and whether a job finds a place in it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": engine.cpus_per_job, "GPU": gpus}
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in wanted}
    there = f"{len(nodes)} node{'s'[: len(nodes) != 1]} with {total['CPU']:g} CPUs and {total['GPU']:g} GPUs"
    _LOG.info("Ray: %s; a job takes %g and %g.", there, engine.cpus_per_job, gpus)
    if any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    asked = f"engine.cpus_per_job={engine.cpus_per_job:g} and engine.gpus_per_job={gpus:g}"
    short = f"{asked} are more than any node has"
    if engine.address is None:
        raise TikmixError(f"{short}: there is {there}. Ask for less, or join a larger cluster (engine.address).")
    _LOG.warning("%s: there is %s. Jobs wait until a node with more joins.", short, there)


def _environment(engine: EngineParameters) -> dict[str, str]:
    """Return what jobs find in their environment."""
    # Ray would set the threads to the cores of the job, a process of this machine has all cores
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(usable_cores()))}
    # a process of this machine finds the modules that this one finds
    return threads | ({} if engine.address else {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})


def _number(amount: float) -> float:
    """Return a whole number as one, which Ray asks for above 1."""
    return int(amount) if amount == int(amount) else amount


def require_same(expected: Mapping[str, str], folders: Sequence[Path]) -> None:
    """Refuse to work where the code is not what `installed` returned where the jobs come from, or a folder not there.

    Raises:
        TikmixError: naming this node, and what is different there.
    """
    node = socket.gethostname()
    own = installed()
    different = [
        f"{name} is {own[name]} and not {version}" for name, version in expected.items() if own[name] != version
    ]
    if different:
        raise TikmixError(
            f"engine.address: on the node {node} {'; '.join(different)}, so that its results would not be those of one "
            "machine. Install on all nodes what is installed here, or use one image for all."
        )
    for folder in folders:
        if not folder.exists():
            raise TikmixError(
                f"engine.address: the node {node} has no {folder}. All nodes have to see the project under the same "
                "path: put it on a disk that they share, or use engine.address=null."
            )
