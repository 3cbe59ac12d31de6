"""What several processes are to train, in a folder that all of them see.

The folder is also where their resume points lie (`lm.resume`), so that whoever starts them again needs it alone.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, replacing, write_json
from tikmix_pipeline.lm.resume import JOB, ONE_PROCESS
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.parameters import ModelParameters, TrainParameters


@dataclass(frozen=True)
class Job:
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
        write_json(folder / JOB, content)

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Read the job of a folder.

        Raises:
            TikmixError: there is none.
        """
        if not (folder / JOB).is_file():
            raise TikmixError(
                f"{folder} holds no {JOB}: ranks are started on the folder that a run with train.world_size above 1 "
                "prepares, and that every machine must see."
            )
        content: dict[str, Any] = read_json(folder / JOB)
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


def prepare(job: Job, found: Path | None, keep: Callable[[Callable[[Path], Any]], Any]) -> None:
    """Lay the job's folder out, with what was trained of the chunk already.

    Args:
        job: what is to be trained.
        found: a folder of resume points of this very chunk, if there is one.
        keep: lets a function replace that folder (`ResumePoint.save`).
    """
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
