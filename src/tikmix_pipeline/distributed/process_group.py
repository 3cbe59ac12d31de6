"""Process groups in torch.distributed's words, and the null object for a process that is alone.

Every process of a group makes the same calls in the same order. Tensors go by gloo or NCCL, whatever else by gloo.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tikmix_pipeline.files import replacing

Value = TypeVar("Value")


class ProcessGroup:
    """One process that is all there are, and has nobody to wait for.

    Attributes:
        rank: its number in the group.
        world_size: how many there are.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """This is the process that does what only one may do."""
        return self.rank == 0

    def barrier(self) -> None:
        """Go on when all processes have come here."""

    def all_reduce(self, value: Tensor) -> Tensor:
        """Return the sum over all processes of tensors of one shape, the same on each."""
        return value

    def reduce(self, value: Tensor, dst: int) -> None:
        """Add what all processes have, in place, at rank `dst`; what the others are left with is of no use."""

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the small values of all processes, in the order of their ranks."""
        return [value]

    def broadcast_object(self, find: Callable[[], Value]) -> Value:
        """Return the small value that rank 0 finds, where others might find another, as on a disk that lags behind."""
        return find()

    def all_gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of all processes, each of which has some, by names that no two have."""
        return dict(tensors)

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield one temporary file, or folder to be made, for all to write to, and then rename it over `path`."""
        with replacing(path) as temporary:
            yield temporary


SINGLE_PROCESS = ProcessGroup()


class RankGroup(ProcessGroup):
    """This rank among those of a group that torch.distributed has initialised."""

    def __init__(self, group: "dist.ProcessGroup | None" = None) -> None:
        """Take a group, or all ranks."""
        self._group = group
        self.rank = dist.get_rank(group)
        self.world_size = dist.get_world_size(group)

    def barrier(self) -> None:
        """Go on when all ranks have come here."""
        self.all_gather_object(None)

    def all_reduce(self, value: Tensor) -> Tensor:
        """Return the sum over all ranks of tensors of one shape, the same on each."""
        summed = value.clone()
        dist.all_reduce(summed, group=self._group)
        return summed

    def reduce(self, value: Tensor, dst: int) -> None:
        """Add what all ranks have, in place, at rank `dst`."""
        dist.reduce(value, group=self._group, group_dst=dst)

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the small values of all ranks, in their order."""
        values = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def broadcast_object(self, find: Callable[[], Value]) -> Value:
        """Return the small value that rank 0 finds."""
        value: Value = self.all_gather_object(find() if self.is_rank_zero else None)[0]
        return value

    def all_gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of all ranks, one broadcast each, on the device where each is with its owner."""
        described = self.all_gather_object({name: (v.shape, v.dtype, v.device.type) for name, v in tensors.items()})
        found: dict[str, Tensor] = {}
        for owner, of_owner in enumerate(described):
            for name, (shape, dtype, device) in of_owner.items():
                mine = owner == self.rank
                found[name] = tensors[name].contiguous() if mine else torch.empty(shape, dtype=dtype, device=device)
                dist.broadcast(found[name], group=self._group, group_src=owner)
        return found

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield one temporary path for all ranks, made and renamed by rank 0."""
        with contextlib.ExitStack() as stack:
            yield self.broadcast_object(lambda: stack.enter_context(replacing(path)))
            self.barrier()
        self.barrier()
