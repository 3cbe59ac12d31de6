"""A chunk of training by several ranks, from one resume point to another."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.checkpoint import clear_half_written, save_point
from tikmix_pipeline.distributed.job import write_job
from tikmix_pipeline.distributed.launch import require_done, run_ranks
from tikmix_pipeline.distributed.process_group import Exchange
from tikmix_pipeline.distributed.sharding import RankTeam
from tikmix_pipeline.files import replacing
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.chunk import train_chunk
from tikmix_pipeline.lm.resume import JOB, ONE_PROCESS, point_name, spread_points
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.parameters import ModelParameters, TrainParameters


@dataclass(frozen=True)
class Training:
    """The arguments of `chunk.train_chunk`, with folders in place of what they hold."""

    start: Path
    shards: Path
    mixture: Mapping[str, float]
    model: ModelParameters
    train: TrainParameters
    schedule: Schedule
    seed: int
    description: str

    def write(self, folder: Path) -> None:
        """Write the job to a folder that is there."""
        content = {
            "start": str(self.start.resolve()),
            "shards": str(self.shards.resolve()),
            "mixture": dict(self.mixture),
            "model": self.model.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "schedule": dataclasses.asdict(self.schedule),
            "seed": self.seed,
            "description": self.description,
        }
        write_job(folder, "training", content)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Training":
        """Read what `write` wrote."""
        return cls(
            start=Path(content["start"]),
            shards=Path(content["shards"]),
            mixture=content["mixture"],
            model=ModelParameters.model_validate(content["model"]),
            train=TrainParameters.model_validate(content["train"]),
            schedule=Schedule(**content["schedule"]),
            seed=content["seed"],
            description=content["description"],
        )


def train_on_ranks(
    job: Training, folder: Path, found: Path | None, keep: Callable[[Callable[[Path], Any]], Any]
) -> None:
    """Train a chunk on several processes; its last resume point holds the result.

    Args:
        job: what is to be trained.
        folder: where the ranks work and keep their resume points; every machine must see it.
        found: `folder`, where it holds resume points of this very chunk.
        keep: lets a function replace the folder (`ResumePoint.save`).

    Raises:
        TikmixError: as `run_ranks`.
    """
    prepare(job, found, keep)
    run_ranks(folder, job.train)
    last_step = Checkpoint(job.start).step + job.schedule.chunk_steps
    require_done(folder / point_name(last_step) in spread_points(folder), job.train)


def prepare(job: Training, found: Path | None, keep: Callable[[Callable[[Path], Any]], Any]) -> None:
    """Lay the job's folder out, with what was trained of the chunk already; the arguments of `train_on_ranks`."""
    if found is not None and (found / JOB).is_file():
        job.write(found)
        return

    def write(folder: Path) -> None:
        with replacing(folder) as temporary:
            temporary.mkdir()
            if found is not None:
                # links: nothing is copied, and the old folder is whole until the new one takes its place
                shutil.copytree(found, temporary / ONE_PROCESS, copy_function=os.link)
            job.write(temporary)

    keep(write)


def train(job: Training, folder: Path, team: RankTeam, everyone: Exchange) -> None:
    """Do one rank's part, from the last resume point to the chunk's end."""
    if everyone.leads:
        clear_half_written(folder)
    everyone.wait()
    state = train_chunk(
        Checkpoint(job.start),
        TokenShards.open(job.shards),
        job.mixture,
        model=job.model,
        train=job.train,
        schedule=job.schedule,
        seed=job.seed,
        resume=folder,
        save=partial(save_point, folder=folder),
        description=job.description,
        team=team,
    )
    save_point(state, folder)
