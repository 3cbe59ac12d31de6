"""What ranks tell each other: by gloo, or by NCCL, with gloo for what is on the CPU."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tikmix_pipeline.distributed.process_group import Exchange, Value
from tikmix_pipeline.files import replacing


class RankExchange(Exchange):
    """This rank among those of a group."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """Take a group, or all ranks."""
        self._group = group
        self.rank = dist.get_rank(group)
        self.count = dist.get_world_size(group)

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        self.everyones(None)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all ranks of tensors of one shape, the same on each."""
        summed = value.clone()
        dist.all_reduce(summed, group=self._group)
        return summed

    def sum_at(self, owner: int, value: Tensor) -> None:
        """Add what all ranks have, in place, at one of them."""
        dist.reduce(value, group=self._group, group_dst=owner)

    def everyones(self, value: Any) -> list[Any]:
        """Return the small values of all ranks, in their order."""
        values = [None] * self.count
        dist.all_gather_object(values, value, group=self._group)
        return values

    def by_the_first(self, decide: Callable[[], Value]) -> Value:
        """Return what the first rank finds, a small value."""
        value: Value = self.everyones(decide() if self.leads else None)[0]
        return value

    def shared(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of all ranks, one broadcast each, on the device where each is with its owner."""
        described = self.everyones({name: (v.shape, v.dtype, v.device.type) for name, v in tensors.items()})
        found: dict[str, Tensor] = {}
        for owner, of_owner in enumerate(described):
            for name, (shape, dtype, device) in of_owner.items():
                mine = owner == self.rank
                found[name] = tensors[name].contiguous() if mine else torch.empty(shape, dtype=dtype, device=device)
                dist.broadcast(found[name], group=self._group, group_src=owner)
        return found

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield one temporary path for all ranks, made and renamed by the first."""
        with contextlib.ExitStack() as stack:
            yield self.by_the_first(lambda: stack.enter_context(replacing(path)))
            self.wait()
        self.wait()
