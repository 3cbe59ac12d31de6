"""Start the processes that do a job, and wait for them: by PyTorch's elastic launcher, or by the user's command.

The launcher starts all ranks again, `train.max_restarts` times, when one of them dies; they go on from what they have
kept. Ctrl-C, or the end of this process, ends them, and the next run goes on from there too.
"""

import contextlib
import logging
import multiprocessing
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from tikmix_pipeline.distributed.job import FAILURE, Job, work
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.training import ProcessParameters

_GRACE_SECONDS = 20  # of the thirty that Slurm and Kubernetes leave to a job


def run_ranks(job: Job, folder: Path) -> None:
    """Have several processes do a job in a folder, made if need be, that every machine must see.

    Raises:
        TikmixError: a mistake that a rank has met, ranks that died more often than `train.max_restarts`, or a command
            of `train.launch` that failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    job.write(folder)
    failure = folder / FAILURE
    failure.unlink(missing_ok=True)
    try:
        if job.processes.launch is None:
            launch(job.processes, folder)
        else:
            _run(job.processes.launch, folder)
    except TikmixError as error:
        if not failure.is_file():
            raise
        raise TikmixError(failure.read_text(encoding="utf-8")) from error
    if failure.is_file():
        raise TikmixError(failure.read_text(encoding="utf-8"))


def require_done(done: bool, processes: ProcessParameters) -> None:
    """Raise a TikmixError where a launcher came back without the work."""
    if not done:
        raise TikmixError(
            f"The ranks ended without a result. train.launch={processes.launch!r} must start train.world_size="
            f"{processes.world_size} ranks of tikmix_pipeline.distributed on the folder that it is given, and wait for "
            "them."
        )


def folder_beside(folder: Path) -> Path:
    """Return where ranks work on what goes to `folder`: beside it, where every machine sees both."""
    return folder.with_name(f"{folder.name}.ranks")


@dataclass(frozen=True)
class Nodes:
    """Where ranks are started that are to find each other: nodes with as many ranks each, which meet at an endpoint.

    The address is this node's, for its ranks; None stands for its host name.
    """

    count: int = 1
    endpoint: str = "localhost:0"
    run: str = field(default_factory=lambda: uuid4().hex)
    address: str | None = "127.0.0.1"


def launch(processes: ProcessParameters, folder: Path, nodes: Nodes | None = None) -> None:
    """Start this machine's ranks, all there are or those of one of several nodes, and wait for them.

    A TikmixError says that they died more often than `train.max_restarts`, or that this process may start none.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if multiprocessing.current_process().daemon:
        raise TikmixError(
            f"train.world_size={processes.world_size} inside a worker process, as an arm of `compare` is: it may start "
            "no processes of its own. Set train.world_size=1 there."
        )
    nodes = nodes or Nodes()
    config = LaunchConfig(
        min_nodes=nodes.count,
        max_nodes=nodes.count,
        nproc_per_node=processes.world_size // nodes.count,
        run_id=nodes.run,
        rdzv_backend="c10d",
        rdzv_endpoint=nodes.endpoint,
        local_addr=nodes.address,
        max_restarts=processes.max_restarts,
        start_method="spawn",
    )
    with _own_signals(), _no_traceback_of_a_mistake(folder):
        try:
            elastic_launch(config, work)(folder)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + error.sigval) from None
        except ChildFailedError as error:
            rank, first = error.get_first_failure()
            raise TikmixError(
                f"Rank {rank} of train.world_size={processes.world_size} died with exit code {first.exitcode}, after "
                f"train.max_restarts={processes.max_restarts} restarts; its own message is above. What they had done "
                "is kept: run it again, with smaller train.micro_batch_size or influence.batch_size if memory ran out."
            ) from error


def launch_on_node(shared: tuple[ProcessParameters, Path, Nodes], node: int) -> None:
    """Start one node's ranks: `launch` as a job of `jobs.engine.each_job`."""
    del node
    launch(*shared)


@contextlib.contextmanager
def _no_traceback_of_a_mistake(folder: Path) -> Iterator[None]:
    """Keep the launcher from logging a failure that is told in the user's terms."""
    log = logging.getLogger("torch.distributed.elastic.multiprocessing.api")

    def is_worth_logging(_record: logging.LogRecord) -> bool:
        return not (folder / FAILURE).is_file()

    log.addFilter(is_worth_logging)
    try:
        yield
    finally:
        log.removeFilter(is_worth_logging)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Put back what the launcher sets: its handlers of signals outlive it."""
    is_main = threading.current_thread() is threading.main_thread()  # no other may set any
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT) if is_main else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(command: str, folder: Path) -> None:
    """Run the user's command, which starts the ranks on whatever machines."""
    words = [word.replace("{folder}", str(folder)) for word in shlex.split(command)]
    try:
        with subprocess.Popen(words) as process, _ended_with(process):  # noqa: S603 - it is the user's own
            code = process.wait()
        if code:
            raise subprocess.CalledProcessError(code, words)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TikmixError(
            f"The command of train.launch failed ({error}); its own messages are above. It must start "
            "train.world_size ranks of tikmix_pipeline.distributed, and wait for them."
        ) from error


@contextlib.contextmanager
def _ended_with(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Let what ends this process end the command too, in order: killed at once, it would leave its ranks."""
    try:
        yield
    except BaseException:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
