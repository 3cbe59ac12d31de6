"""Process groups in torch.distributed's words, and how work is shared out over their processes.

Of one process alone nothing is sent, and nobody waited for.

Every process of a group makes the same calls in the same order. Tensors go by gloo or NCCL, whatever else by gloo.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tikmix_pipeline.files import replacing

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a group, which is None for all ranks, and for a process that is alone."""

    rank: int = 0
    world_size: int = 1
    group: "dist.ProcessGroup | None" = None

    @classmethod
    def of_ranks(cls, group: "dist.ProcessGroup | None" = None) -> "ProcessGroup":
        """Return a group that torch.distributed has initialised, by default of all ranks."""
        return cls(dist.get_rank(group), dist.get_world_size(group), group)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process does what only one may do."""
        return self.rank == 0

    def barrier(self) -> None:
        """Go on when all processes have come here."""
        self.all_gather_object(None)

    def all_reduce(self, value: Tensor) -> Tensor:
        """Return the sum over all processes of tensors of one shape, the same on each."""
        if self.world_size == 1:
            return value
        summed = value.clone()
        dist.all_reduce(summed, group=self.group)
        return summed

    def reduce(self, value: Tensor, dst: int) -> None:
        """Add what all processes have, in place, at rank `dst`; what the others are left with is of no use."""
        if self.world_size > 1:
            dist.reduce(value, group=self.group, group_dst=dst)

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the small values of all processes, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def broadcast_object(self, find: Callable[[], Value]) -> Value:
        """Return the small value that rank 0 finds, where others might find another, as on a disk that lags behind."""
        value: Value = self.all_gather_object(find() if self.is_rank_zero else None)[0]
        return value

    def all_gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of all processes, each of which has some, by names that no two have.

        One broadcast each, on the device where it is with its owner.
        """
        if self.world_size == 1:
            return dict(tensors)
        described = self.all_gather_object({name: (v.shape, v.dtype, v.device.type) for name, v in tensors.items()})
        found: dict[str, Tensor] = {}
        for owner, of_owner in enumerate(described):
            for name, (shape, dtype, device) in of_owner.items():
                mine = owner == self.rank
                found[name] = tensors[name].contiguous() if mine else torch.empty(shape, dtype=dtype, device=device)
                dist.broadcast(found[name], group=self.group, group_src=owner)
        return found

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield one temporary file, or folder to be made, for all to write to; rank 0 then renames it over `path`."""
        with contextlib.ExitStack() as stack:
            yield self.broadcast_object(lambda: stack.enter_context(replacing(path)))
            self.barrier()
        self.barrier()


SINGLE_PROCESS = ProcessGroup()


def share_out(costs: Sequence[float], count: int) -> list[int]:
    """Name one of `count` processes for every piece: the dearest first, each to the process that has least so far.

    The busiest has at most a third more than in the best of all ways, or one piece alone (Graham 1969).
    """
    loads = np.zeros(count)
    owners = [0] * len(costs)
    for piece in sorted(range(len(costs)), key=lambda piece: (-costs[piece], piece)):
        owners[piece] = int(loads.argmin())
        loads[owners[piece]] += costs[piece]
    return owners
