"""Sums over batches that one of several processes keeps, and to which all add.

Each process sees its sequences of a batch. Memory for second moments so falls with the number of processes, at the
price of sending a moment to its owner once per batch.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tikmix_pipeline.distributed.process_group import ALONE, Exchange
from tikmix_pipeline.influence.gradients import sum_dtype
from tikmix_pipeline.influence.shares import share_out


@dataclass(frozen=True)
class Home:
    """Where some sums are kept.

    Attributes:
        exchange: the processes that add to them.
        owner: the one that keeps them.
    """

    exchange: Exchange = ALONE
    owner: int = 0


HERE = Home()


def homes_of(sizes: Sequence[float], exchange: Exchange) -> list[Home]:
    """Spread sums of these sizes evenly over the processes."""
    return [Home(exchange, owner) for owner in share_out(sizes, exchange.count)]


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
        is_home = home.exchange.rank == home.owner
        self.sums = {role: self._zeros(role) for role in self._blank} if is_home else {}

    @contextlib.contextmanager
    def adding(self, role: str) -> Iterator[Tensor]:
        """Yield a tensor for this process's part of a batch to be added into; all processes do this at a time."""
        exchange, owner = self.home.exchange, self.home.owner
        if exchange.count == 1:
            yield self.sums[role]
            return
        part = self._zeros(role)
        yield part
        exchange.sum_at(owner, part)
        if role in self.sums:
            self.sums[role] += part

    def _zeros(self, role: str) -> Tensor:
        shape, dtype = self._blank[role]
        return torch.zeros(shape, dtype=dtype, device=self._device)
