"""One function for many jobs, whichever engine runs them."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.on_ray import each_on_ray
from tikmix_pipeline.jobs.worker_pool import Died, Job, Result, Shared, each_in_a_process, usable_cores
from tikmix_pipeline.parameters.training import EngineParameters


def each_job(
    function: Callable[[Shared, Job], Result],
    shared: Shared,
    jobs: Sequence[Job],
    *,
    engine: EngineParameters,
    workers: int | Literal["auto"],
    on_cpu: bool,
    folders: Sequence[Path] = (),
) -> Iterator[tuple[int, Result | Died]]:
    """Yield the number of each job with what `function(shared, job)` returned, as they end.

    Whatever ends the iterator ends the jobs under way.

    Args:
        function: importable by name.
        shared: sent once to each process, or node.
        jobs: begun in this order.
        workers: most jobs at a time. `auto`: as `workers_here` says; on Ray as many as there is room for.
        on_cpu: whether jobs train on a CPU.
        folders: what jobs read and write, which every node has to see.

    Raises:
        TikmixError: as raised by `function`; or the engine does not fit: no Ray, no cluster at the address, too little
            room for a single job, a node with other code or without the folders.
        RuntimeError: `function` raised anything else, and the message is its traceback; or a process could not start.
    """
    if not jobs:
        return iter(())
    require_installed(engine)
    if engine.kind == "local":
        count = workers_here(workers, len(jobs), on_cpu=on_cpu)
        return each_in_a_process(function, shared, jobs, workers=count)
    return each_on_ray(
        function,
        shared,
        jobs,
        engine=engine,
        gpus=_gpus_per_job(engine, on_cpu=on_cpu),
        at_once=len(jobs) if workers == "auto" else workers,
        folders=folders,
    )


def require_installed(engine: EngineParameters) -> None:
    """Refuse an engine that is not there, before anything is computed.

    Raises:
        TikmixError: Ray is asked for and not installed.
    """
    if engine.kind == "ray" and importlib.util.find_spec("ray") is None:
        raise TikmixError(
            "engine.kind=ray needs the package ray: pip install 'tikmix-pipeline[ray]', or set engine.kind=local."
        )


def workers_here(workers: int | Literal["auto"], jobs: int, *, on_cpu: bool) -> int:
    """Return how many jobs the local engine runs at a time: `auto` is one per core on a CPU, and one on a GPU."""
    return min(usable_cores() if on_cpu else 1, jobs) if workers == "auto" else workers


def _gpus_per_job(engine: EngineParameters, *, on_cpu: bool) -> float:
    if engine.gpus_per_job == "auto":
        return 0.0 if on_cpu else 1.0
    if engine.gpus_per_job == 0 and not on_cpu:
        raise TikmixError(
            "engine.gpus_per_job is 0, and Ray hides GPUs from a job that asked for none, but train.device is one. "
            "Give each job a GPU or a share of one (0.5: two jobs on each), or set train.device=cpu."
        )
    return engine.gpus_per_job
