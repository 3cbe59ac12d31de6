"""Sums over batches that one of several processes keeps, and to which all add.

Each process sees its sequences of a batch. Memory for second moments so falls with the number of processes, at the
price of sending a moment to its owner once per batch.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tikmix_pipeline.distributed.assignment import share_out
from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tikmix_pipeline.influence.gradients import sum_dtype


@dataclass(frozen=True)
class Home:
    """Where some sums are kept.

    Attributes:
        process_group: the processes that add to them.
        owner: the one that keeps them.
    """

    process_group: ProcessGroup = SINGLE_PROCESS
    owner: int = 0


HERE = Home()


def homes_of(sizes: Sequence[float], process_group: ProcessGroup) -> list[Home]:
    """Spread sums of these sizes evenly over the processes."""
    return [Home(process_group, owner) for owner in share_out(sizes, process_group.world_size)]


_Shapes = Mapping[str, tuple[int, ...]]


class Sums:
    """Sums by role.

    Attributes:
        home: where they are kept.
        dtype: of those that are no counts.
        sums: the sums; of all roles at home, empty in every other process.
    """

    def __init__(self, home: Home, like: Tensor, shapes: _Shapes, counts: _Shapes | None = None) -> None:
        """Start at zero.

        Args:
            home: where the sums are kept.
            like: names the device, and the precision that gradients by it are summed in.
            shapes: by role.
            counts: shapes of sums of integers.
        """
        self.home = home
        self.dtype = sum_dtype(like)
        self._device = like.device
        self._blank = {role: (shape, self.dtype) for role, shape in shapes.items()}
        self._blank |= {role: (shape, torch.int64) for role, shape in (counts or {}).items()}
        is_home = home.process_group.rank == home.owner
        self.sums = {role: self._zeros(role) for role in self._blank} if is_home else {}

    @contextlib.contextmanager
    def adding(self, role: str) -> Iterator[Tensor]:
        """Yield a tensor for this process's part of a batch to be added into; all processes do this at a time."""
        process_group, owner = self.home.process_group, self.home.owner
        if process_group.world_size == 1:
            yield self.sums[role]
            return
        part = self._zeros(role)
        yield part
        process_group.reduce(part, owner)
        if role in self.sums:
            self.sums[role] += part

    def _zeros(self, role: str) -> Tensor:
        shape, dtype = self._blank[role]
        return torch.zeros(shape, dtype=dtype, device=self._device)
