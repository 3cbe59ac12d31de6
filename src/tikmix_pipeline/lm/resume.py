"""Where a chunk under way is kept, so that a killed run goes on from there.

A folder of resume points is one or the other:

    config.json, model.safetensors, ...      a checkpoint of this very chunk, by one process
    job.json                                 what several processes are to train
    one_process/                             where they began, if one process had trained a part of the chunk
    step_00000150/                           their state after so many steps, by PyTorch's distributed checkpoint (DCP)
    step_00000150/state.json                 the rest, as JSON; written last: a point without it is unfinished

Each rank writes its shards, and any number of processes reads them, since tensors lie under their names. DCP promises
no compatibility between releases of PyTorch, and its table of contents is a pickle: such a point is for the run that
wrote it, not for exchange.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor

from tikmix_pipeline.distributed.job import Job, holds_job
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, replacing, write_json
from tikmix_pipeline.lm.checkpoint import place_of, restore_place
from tikmix_pipeline.lm.trainer import TrainingState

_ONE_PROCESS = "one_process"
_STATE = "state.json"
_POINTS = "step_*"


class ResumeFolder(Protocol):
    """A folder that holds what was trained of one very chunk, or nothing."""

    @property
    def folder(self) -> Path:
        """Where it is."""

    def find(self) -> Path | None:
        """Return the folder, if there is something of this very chunk in it."""

    def save(self, write: Callable[[Path], Any]) -> None:
        """Let `write` replace the folder, or write what is to replace it."""


def find_point(folder: Path) -> Path | None:
    """Return the latest complete resume point in a folder."""
    if (folder / "config.json").is_file():
        return folder
    of_ranks = points_in(folder)
    if of_ranks:
        return of_ranks[-1]
    before = folder / _ONE_PROCESS
    return before if (before / "config.json").is_file() else None


def point_at(folder: Path, step: int) -> Path:
    """Return where the resume point of ranks after so many steps stands."""
    return folder / f"step_{step:08d}"


def is_point(path: Path) -> bool:
    """Tell whether a folder is a complete resume point of ranks."""
    return (path / _STATE).is_file()


def points_in(folder: Path) -> list[Path]:
    """Return the complete resume points of ranks in a folder, in the order of their steps."""
    return sorted(point for point in folder.glob(_POINTS) if is_point(point))


def lay_out(job: Job, resume: ResumeFolder) -> None:
    """Make a folder ready for ranks, with what was trained of the chunk already."""
    found = resume.find()
    if found is not None and holds_job(found):
        return

    def write(folder: Path) -> None:
        with replacing(folder) as temporary:
            temporary.mkdir()
            if found is not None:
                # links: nothing is copied, and the old folder is whole until the new one takes its place
                shutil.copytree(found, temporary / _ONE_PROCESS, copy_function=os.link)
            job.write(temporary)

    resume.save(write)


def save_ranks_point(state: TrainingState, folder: Path) -> Path:
    """Write the state of all ranks, if that was not done, in place of the points before; each rank calls this."""
    from torch.distributed.checkpoint.state_dict_saver import save

    point = point_at(folder, state.step)
    if is_point(point):
        return point
    save(_named(state, state.optimizer.state_tensors()), checkpoint_id=point)
    if dist.get_rank() == 0:
        write_json(point / _STATE, place_of(state))
        for other in folder.glob(_POINTS):
            if other != point:
                remove(other)
    dist.barrier()
    return point


def load_ranks_point(state: TrainingState, point: Path) -> None:
    """Load a point of ranks into a state whose model lies where it is trained, by ranks or by one process.

    A point that is damaged, or of another model, optimiser or stream, raises a TikmixError.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    blank = state.optimizer.blank_state_tensors()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # that is what is meant
            load(_named(state, blank), checkpoint_id=point, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        reason = next((str(exception) for exception, _ in error.failures.values()), "no reason was given")
        raise TikmixError(
            f"The resume point {point} cannot be read ({reason}). Delete {point.parent} and run its round again."
        ) from error
    place = read_json(point / _STATE)
    state.optimizer.load_state_tensors(blank, lambda value, _: value)
    restore_place(state, place)


def clear_unfinished(folder: Path) -> None:
    """Remove what ranks that died left behind; no other rank may be writing."""
    for point in folder.glob(_POINTS):
        if not is_point(point):
            remove(point)


def _named(state: TrainingState, of_optimizer: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {f"model/{name}": value.detach() for name, value in state.model.named_parameters()}
    return weights | {f"optimizer/{name}": value for name, value in of_optimizer.items()}
