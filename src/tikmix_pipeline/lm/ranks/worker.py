"""What each of several processes does: train its part of a chunk.

On one machine `launch.run_ranks` starts them. On several, once for each machine, with the folder of the job:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint first-machine:29500 \\
        -m tikmix_pipeline.lm.ranks.worker data/06_models/default/round_0.resume

A mistake that the user can mend is written to the folder, since a launcher keeps no more than a worker's exit code.
"""

import contextlib
import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch.distributed as dist

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import remove
from tikmix_pipeline.jobs.workers import end_with_parent
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.chunk import train_chunk
from tikmix_pipeline.lm.ranks.job import Job
from tikmix_pipeline.lm.ranks.points import clear_half_written, save_point
from tikmix_pipeline.lm.ranks.team import RankTeam, joined
from tikmix_pipeline.progress import no_progress_bars

FAILURE = "failure.txt"


def work(folder: Path) -> None:
    """Train the job of `folder` as one of its ranks, from the last resume point to the chunk's end.

    Raises:
        TikmixError: what `train_chunk` raises, or there are other than `train.world_size` ranks.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group: end at once and say nothing
    end_with_parent()
    failure = folder / FAILURE
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        remove(failure)
    elif failure.is_file():
        return  # started again after a mistake that would only be repeated
    job = Job.read(folder)
    try:
        with joined(job.train) as team:
            _train(job, folder, team)
    except TikmixError as error:
        failure.write_text(str(error), encoding="utf-8")
        raise


def _train(job: Job, folder: Path, team: RankTeam) -> None:
    if team.rank == 0:
        clear_half_written(folder)
    dist.barrier()
    with contextlib.nullcontext() if team.rank == 0 else no_progress_bars():
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


if __name__ == "__main__":
    work(Path(sys.argv[1]))
