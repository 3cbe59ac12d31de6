"""What several processes are to do, in a folder that all of them see, and what each of them does.

`job.json` names a function, as `module:function`, and its arguments as JSON has them. Whoever starts the ranks again
needs that folder alone. A mistake that the user can mend is written to it, since a launcher keeps no more than a
worker's exit code.
"""

import contextlib
import importlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, validate_call
from pydantic_core import to_jsonable_python

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, write_json, write_text
from tikmix_pipeline.jobs.worker_pool import end_with_parent
from tikmix_pipeline.parameters.base import ParameterGroup
from tikmix_pipeline.parameters.training import ProcessParameters
from tikmix_pipeline.progress import no_progress_bars

FAILURE = "failure.txt"
_JOB = "job.json"


@dataclass(frozen=True)
class Job:
    """What ranks do together: every rank calls `entry(**arguments, mesh=mesh)`, a function importable by name.

    `processes` says how many ranks there are, and how they are started.
    """

    entry: Callable[..., object]
    arguments: Mapping[str, Any]
    processes: ProcessParameters

    def write(self, folder: Path) -> None:
        """Write the job to a folder that is there."""
        processes = to_jsonable_python(self.processes.narrowed(ProcessParameters))
        arguments = handed_over(self.entry, self.arguments)
        write_json(folder / _JOB, {"entry": _name_of(self.entry), "arguments": arguments, "processes": processes})

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Read the job of a folder, or raise a TikmixError; its entry takes the arguments as they were written."""
        if not holds_job(folder):
            raise TikmixError(
                f"{folder} holds no {_JOB}: ranks are started on the folder that a run with train.world_size above 1 "
                "prepares, and that every machine must see."
            )
        content = read_json(folder / _JOB)
        processes = ProcessParameters.model_validate(content["processes"])
        return cls(_named(content["entry"]), content["arguments"], processes)


def holds_job(folder: Path) -> bool:
    """Tell whether a folder holds a job."""
    return (folder / _JOB).is_file()


def handed_over(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a function as JSON has them, and as pydantic reads them by the function's annotations.

    An artifact, which is whatever has a `folder`, is handed over as that folder; a parameter group as the facet that
    the function reads; a partial function by its name and keywords (`resumed_partial`).
    """
    hints = get_type_hints(function)
    return {name: _handed(value, hints.get(name)) for name, value in arguments.items()}


def _handed(value: Any, hint: Any) -> Any:
    if isinstance(value, partial):
        return {"function": _name_of(value.func), "keywords": handed_over(value.func, value.keywords)}
    if isinstance(value, ParameterGroup) and isinstance(hint, type) and issubclass(hint, ParameterGroup):
        value = value.narrowed(hint)
    folder = value if isinstance(value, Path) else getattr(value, "folder", None)
    return str(folder.resolve()) if isinstance(folder, Path) else to_jsonable_python(value)


def resumed_partial(content: Mapping[str, Any]) -> "partial[Any]":
    """Return a partial function that was handed over."""
    return partial(_named(content["function"]), **content["keywords"])


def _name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _named(name: str) -> Callable[..., Any]:
    """Return a function that takes arguments which were handed over."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(found)


def work(folder: Path) -> None:
    """Do one rank's part of the job of `folder`, going on from what is there already.

    Raises:
        TikmixError: what the work raises, or there are other than `train.world_size` ranks.
    """
    from tikmix_pipeline.distributed.sharding import joined  # FSDP, which one process does without

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group: end at once and say nothing
    end_with_parent()
    failure = folder / FAILURE
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        remove(failure)
    elif failure.is_file():
        return  # started again after a mistake that would only be repeated
    job = Job.read(folder)
    try:
        with joined(job.processes) as mesh, contextlib.ExitStack() as stack:
            if not mesh.world.is_rank_zero:
                stack.enter_context(no_progress_bars())
            job.entry(**job.arguments, mesh=mesh)
    except TikmixError as error:
        write_text(failure, str(error))  # whole or not at all, since another rank's end is the end of this one
        raise
