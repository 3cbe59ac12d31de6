"""The command that starts ranks on a Ray cluster, in place of PyTorch's launcher on one machine:

train.launch: "python -m tikmix_pipeline.distributed.ray_launch --nodes 2 --gpus 8 {folder}"
"""

import socket
from pathlib import Path

import click

from tikmix_pipeline.distributed.on_ray import launch_on_ray
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import EngineParameters


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
