"""Where a chunk under way is kept, so that a killed run goes on from there.

A folder of resume points is one or the other:

    config.json, model.safetensors, ...      a checkpoint of this very chunk, by one process
    job.json                                 what several processes are to train
    one_process/                             where they began, if one process had trained a part of the chunk
    step_00000150/                           their state after so many steps (`distributed.checkpoint`)
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tikmix_pipeline.distributed import checkpoint as points
from tikmix_pipeline.distributed.job import Job, holds_job
from tikmix_pipeline.files import replacing
from tikmix_pipeline.lm.checkpoint import place_of, restore_place
from tikmix_pipeline.lm.trainer import TrainingState

_ONE_PROCESS = "one_process"


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
    of_ranks = points.points_in(folder)
    if of_ranks:
        return of_ranks[-1]
    before = folder / _ONE_PROCESS
    return before if (before / "config.json").is_file() else None


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
    point = points.point_at(folder, state.step)
    if not points.is_point(point):
        points.save_point(point, _named(state, state.optimizer.state_tensors()), place_of(state))
    return point


def load_ranks_point(state: TrainingState, point: Path) -> None:
    """Load a point of ranks into a state whose model lies where it is trained, by ranks or by one process.

    Raises:
        TikmixError: the point is damaged, or is of another model, optimiser or stream.
    """
    blank = state.optimizer.blank_state_tensors()
    place = points.load_point(point, _named(state, blank))
    state.optimizer.load_state_tensors(blank, lambda value, _: value)
    restore_place(state, place)


def _named(state: TrainingState, of_optimizer: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {f"model/{name}": value.detach() for name, value in state.model.named_parameters()}
    return weights | {f"optimizer/{name}": value for name, value in of_optimizer.items()}
