"""What each of several processes does: its part of the job that lies in a folder.

A mistake that the user can mend is written to the folder, since a launcher keeps no more than a worker's exit code.
"""

import contextlib
import os
import signal
from pathlib import Path

from tikmix_pipeline.distributed.job import read_job
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import remove, write_text
from tikmix_pipeline.jobs.workers import end_with_parent
from tikmix_pipeline.progress import no_progress_bars

FAILURE = "failure.txt"


def work(folder: Path) -> None:
    """Do one rank's part of the job of `folder`, going on from what is there already.

    Raises:
        TikmixError: what the work raises, or there are other than `train.world_size` ranks.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group: end at once and say nothing
    end_with_parent()
    failure = folder / FAILURE
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        remove(failure)
    elif failure.is_file():
        return  # started again after a mistake that would only be repeated
    job = read_job(folder)
    try:
        _train(job, folder) if job["kind"] == "training" else _measure(job, folder)
    except TikmixError as error:
        write_text(failure, str(error))  # whole or not at all, since another rank's end is the end of this one
        raise


def _train(content: dict[str, object], folder: Path) -> None:
    from tikmix_pipeline.distributed.rank_group import RankExchange
    from tikmix_pipeline.distributed.sharding import joined
    from tikmix_pipeline.lm.on_ranks import Training, train

    job = Training.of(content)
    with joined(job.train) as team, _bars_of_the_first(team.rank):
        train(job, folder, team, RankExchange())


def _measure(content: dict[str, object], folder: Path) -> None:
    from tikmix_pipeline.distributed.sharding import joined
    from tikmix_pipeline.influence.on_ranks import Measuring, measure
    from tikmix_pipeline.influence.rank_crew import crew_of

    job = Measuring.of(content)
    placed = job.train.model_copy(update={"device": job.influence.device})
    with joined(placed) as team, _bars_of_the_first(team.rank):
        measure(job, folder, crew_of(team, job.train))


def _bars_of_the_first(rank: int) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if rank == 0 else no_progress_bars()
