"""The command that starts ranks on a Ray cluster, in place of PyTorch's launcher on one machine:

    train.launch: "python -m tikmix_pipeline.distributed.ray_launch --nodes 2 --gpus 8 {folder}"

Ray finds each node's ranks a place, PyTorch's launcher does the rest: one Ray job per node starts that node's ranks,
and starts them again when one dies. When a node is lost the others are ended, and the next start goes on from what they
had kept.
"""

import contextlib
import socket
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import cast
from uuid import uuid4

import click
from torch._C._distributed_c10d import TCPStore

from tikmix_pipeline.distributed.job import Job
from tikmix_pipeline.distributed.launch import Nodes, launch_on_node
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.engine import each_job
from tikmix_pipeline.jobs.worker_pool import Died
from tikmix_pipeline.parameters.training import EngineParameters

_LOOPBACK = "127.0.0.1"


def launch_on_ray(folder: Path, engine: EngineParameters, nodes: int, host: str) -> None:
    """Have the job of a folder done by ranks on so many nodes of a cluster.

    Args:
        folder: every node must see it under the same path.
        engine: which cluster, and what each node's ranks are given together.
        nodes: each has as many ranks.
        host: of this process, as the nodes reach it.

    Raises:
        TikmixError: the ranks cannot be dealt to the nodes, the cluster does not fit, ranks died too often, or a node.
    """
    processes = Job.read(folder).processes
    if processes.world_size % nodes:
        raise TikmixError(f"--nodes {nodes}: train.world_size={processes.world_size} is no multiple of it.")
    # the nodes meet here, so that it does not matter which of them are up first
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=30))
    address = _LOOPBACK if host == _LOOPBACK else None
    jobs = each_job(
        launch_on_node,
        (processes, folder.resolve(), Nodes(nodes, f"{host}:{store.port}", uuid4().hex, address)),
        range(nodes),
        engine=engine.model_copy(update={"retries": 0}),  # one node alone would wait for the others
        workers=nodes,
        on_cpu=engine.gpus_per_job == 0,
        folders=(folder.resolve(),),
    )
    with contextlib.closing(cast("Generator[tuple[int, Died | None]]", jobs)):  # which ends the other nodes' ranks
        lost = next((outcome for _, outcome in jobs if isinstance(outcome, Died)), None)
    if lost is not None:
        raise TikmixError(f"A node was lost: {lost.reason}. What was done is kept: run it again to go on from there.")


@click.command(help="Start the ranks of a job's FOLDER on the nodes of a Ray cluster, and wait for them.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--nodes", type=click.IntRange(min=1), required=True, help="Nodes, each of which has as many ranks.")
@click.option(
    "--address", default="auto", show_default=True, help="Of the cluster: auto, host:port or ray://host:port."
)
@click.option("--cpus", type=float, default=1.0, show_default=True, help="Cores of a node that its ranks are given.")
@click.option("--gpus", type=float, default=0.0, show_default=True, help="GPUs of a node that its ranks are given.")
@click.option("--host", default=socket.getfqdn, help="Of this process, as the nodes reach it; by default its name.")
def main(folder: Path, nodes: int, address: str, cpus: float, gpus: float, host: str) -> None:
    """Start ranks from the command line."""
    engine = EngineParameters(kind="ray", address=address, cpus_per_job=cpus, gpus_per_job=gpus)
    try:
        launch_on_ray(folder, engine, nodes, host)
    except TikmixError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
