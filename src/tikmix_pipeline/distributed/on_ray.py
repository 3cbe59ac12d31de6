"""Ranks on the nodes of a Ray cluster: Ray finds each node's ranks a place, PyTorch's launcher does the rest.

One Ray job per node starts that node's ranks, and starts them again when one dies. When a node is lost the others are
ended, and the next start goes on from what they had kept.
"""

import contextlib
import dataclasses
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import cast
from uuid import uuid4

from torch._C._distributed_c10d import TCPStore

from tikmix_pipeline.distributed.job import read_job
from tikmix_pipeline.distributed.launch import Nodes, launch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.engine import each_job
from tikmix_pipeline.jobs.outcome import Died
from tikmix_pipeline.parameters import EngineParameters, TrainParameters

_LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class _Shared:
    folder: Path
    train: TrainParameters
    nodes: Nodes


def launch_on_ray(folder: Path, engine: EngineParameters, nodes: int, host: str) -> None:
    """Have the job of a folder done by ranks on so many nodes of a cluster.

    Args:
        folder: where the job is; every node must see it under the same path.
        engine: which cluster, and what each node's ranks are given together.
        nodes: each has as many ranks.
        host: of this process, as the nodes reach it.

    Raises:
        TikmixError: the ranks cannot be dealt to the nodes, the cluster does not fit, ranks died too often, or a node.
    """
    train = TrainParameters.model_validate(read_job(folder)["train"])
    if train.world_size % nodes:
        raise TikmixError(f"--nodes {nodes}: train.world_size={train.world_size} is no multiple of it.")
    # the nodes meet here, so that it does not matter which of them are up first
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=30))
    address = _LOOPBACK if host == _LOOPBACK else None
    jobs = each_job(
        _start,
        _Shared(folder.resolve(), train, Nodes(nodes, f"{host}:{store.port}", uuid4().hex, address)),
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


def _start(shared: _Shared, node: int) -> None:
    del node
    launch(shared.train, shared.folder, shared.nodes)
