"""A function called in several processes at a time, as ranks."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tikmix_pipeline.distributed.sharding import RankTeam, joined
from tikmix_pipeline.parameters import TrainParameters


def in_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> dict[int, Any]:
    """Return what `function(team, *arguments)` returns in each of so many ranks."""
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
    found: dict[int, Any] = elastic_launch(config, _as_rank)(function, count, arguments)
    return found


def _as_rank(function: Callable[[RankTeam], Any], count: int, arguments: tuple[Any, ...]) -> Any:
    train = TrainParameters(world_size=count, batch_size=count, device="cpu")
    with joined(train) as team:
        return function(team, *arguments)
