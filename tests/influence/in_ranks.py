"""A function called in several processes at a time, as ranks."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tikmix_pipeline.distributed.sharding import joined
from tikmix_pipeline.parameters.training import ProcessParameters


def in_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> dict[int, Any]:
    """Return what `function(mesh, *arguments)` returns in each of so many ranks."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="spawn",
    )
    processes = ProcessParameters(world_size=count, device="cpu")
    found: dict[int, Any] = elastic_launch(config, _as_rank)(function, processes, arguments)
    return found


def _as_rank(function: Callable[..., Any], processes: ProcessParameters, arguments: tuple[Any, ...]) -> Any:
    with joined(processes) as mesh:
        return function(mesh, *arguments)
