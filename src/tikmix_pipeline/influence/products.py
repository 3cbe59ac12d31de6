"""Products of gradient chunks through the curvature, in memory bounded by a setting:

    I[t, m, j, l] = g_{t,m}ᵀ f(C) g_{j,l} = Σ_b g_{t,m,b}ᵀ f(C_b) g_{j,l,b}      over the blocks b of C.

Blocks are taken one at a time, or piece by piece where C is diagonal on one side of a block and can be cut there. The
task rows of a piece are preconditioned, all at once or band by band, and meet the domain rows in bands. Every number is
read from disk once, unless the task rows of a piece that cannot be cut do not fit: then the domain rows are read once
per band of task rows. Sums over more than a slab of parameters are in float64; parameters that no block covers take no
part. Of several processes each takes its blocks, and the products are summed over all.

Cost: per task row one preconditioning, and one matrix product of T·M by K·L rows over all parameters.

Axes: T tasks, K domains, M chunks of a task, L chunks of a domain, N rows of a band, p scalars of a piece.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.build import BlockOutline, Curvature
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.layers import list_names
from tikmix_pipeline.influence.standard_error import Floats
from tikmix_pipeline.influence.store import GradientStore, Side
from tikmix_pipeline.lm.cost_records import Cost

_COPIES = 4
"""Rows in memory per task row that is rotated into the eigenbasis or back: it, its matrix, and a product's two ends."""

_COPIES_AT_FUNCTION = 2
"""The same while f is taken."""

_FUNCTION_BYTES = 50
"""Bytes per scalar of a piece while f of its eigenvalues is taken: six numbers in float64, and a mask."""

DOT_SLAB = 1 << 14
"""Scalars of a row that one matrix product sums over, and the most of its operands that a library may copy."""

_LEAST_READ = 1 << 16
"""Scalars below which cutting a block further costs more in reads than it saves."""


def chunk_products(
    store: GradientStore, curvature: Curvature, *, memory_megabytes: float, device: torch.device
) -> tuple[Floats, Cost]:
    """Multiply every chunk of every task of a store with every chunk of every domain; say what that took.

    Args:
        curvature: C, on `device`; the processes that share its blocks each call this.
        memory_megabytes: bound on the rows in memory and their temporaries, beside model and curvature.

    Returns:
        products_TMKL, float64, and their cost, without that of the curvature.

    Raises:
        TikmixError: one row of a block that cannot be cut does not fit, or the store lacks a parameter.
        ValueError: sets of one side have unequal numbers of chunks.
    """
    tasks, domains = (Rows.of(store, side) for side in get_args(Side))
    room = room_for(store, curvature, memory_megabytes)
    products_NN = np.zeros((tasks.count, domains.count))
    flops = 0.0
    for block in curvature:
        for piece in cut(block, room, tasks.count):
            _add_piece(products_NN, tasks, domains, piece, room, device)
        flops += block.flops(tasks.count) + 2.0 * tasks.count * domains.count * block.size
    products_NN = curvature.process_group.all_reduce(torch.from_numpy(products_NN)).numpy()
    cost = Cost(flops=sum(curvature.process_group.all_gather_object(flops)))
    return products_NN.reshape(len(tasks.names), -1, len(domains.names), domains.chunks), cost


@dataclass(frozen=True)
class Room:
    """Working memory in bytes, and the bytes of a number in it."""

    limit: int
    itemsize: int

    def require_for(self, outlines: Sequence[BlockOutline]) -> None:
        """Raise a TikmixError if one gradient by a block that cannot be cut does not fit."""
        whole = [outline for outline in outlines if not outline.is_divisible]
        largest = max(whole, key=lambda outline: outline.size, default=None)
        needed = self.needed(1) * largest.size if largest else 0
        if largest and needed > self.limit:
            raise TikmixError(
                f"influence.memory_megabytes ({self.limit / 1e6:g}) is too little for one gradient by "
                f"{list_names(largest.names)}, whose curvature cannot be cut. Raise it to {ceil(needed / 1e6)}."
            )

    def needed(self, rows: int) -> int:
        """Return the bytes per scalar of a piece that preconditioning so many rows takes."""
        at_rotation = (_COPIES * rows + 1) * self.itemsize
        return max(at_rotation, _COPIES_AT_FUNCTION * rows * self.itemsize + _FUNCTION_BYTES)

    def task_rows(self, size: int) -> int:
        """Return how many rows of so many scalars can be preconditioned at once."""
        scalar = self.limit // size
        at_rotation = (scalar // self.itemsize - 1) // _COPIES
        return min(at_rotation, (scalar - _FUNCTION_BYTES) // (_COPIES_AT_FUNCTION * self.itemsize))

    def rows_beside(self, rows: int, size: int) -> int:
        """Return how many rows of so many scalars fit beside `rows` finished ones."""
        return self.limit // (size * self.itemsize) - rows


def room_for(store: GradientStore, curvature: Curvature, memory_megabytes: float) -> Room:
    """Return the room that gradients of a store have; one too small for them raises a TikmixError."""
    outlines = curvature.outlines
    itemsize = max((store.dtype(name).itemsize for outline in outlines for name in outline.names), default=1)
    room = Room(int(memory_megabytes * 1e6), itemsize)
    room.require_for(outlines)
    return room


@dataclass(frozen=True)
class Rows:
    """The chunks of one side of a store, set after set."""

    store: GradientStore
    side: Side
    names: tuple[str, ...]
    chunks: int

    @classmethod
    def of(cls, store: GradientStore, side: Side) -> "Rows":
        """Take all sets of a side; unequal numbers of chunks raise a ValueError."""
        names = store.sets(side)
        counts = {len(store.figures(side, name)) for name in names}
        if len(counts) != 1:
            raise ValueError(f"every {side} must have the same number of chunks, found {sorted(counts)}")
        return cls(store, side, names, counts.pop())

    @property
    def count(self) -> int:
        """How many there are."""
        return self.chunks * len(self.names)

    def read(self, piece: EigenBlock, band: slice, device: torch.device) -> dict[str, Tensor]:
        """Return some of them by the parameters of a piece, (N, ...)."""
        rows = partial(self.store.rows, self.side, self.names, span=piece.span, only=band)
        return {name: rows(name).to(device) for name in piece.names}


def cut(block: EigenBlock, room: Room, task_rows: int) -> Sequence[EigenBlock]:
    """Cut a block so that all task rows can be preconditioned at once, but not finer than is worth a read."""
    most = room.limit // room.needed(task_rows)
    if block.size <= most:
        return [block]
    return block.pieces(max(1, most, min(_LEAST_READ, room.limit // room.needed(1))))


def _add_piece(
    products_NN: Floats, tasks: Rows, domains: Rows, piece: EigenBlock, room: Room, device: torch.device
) -> None:
    for task_band in bands(tasks.count, room.task_rows(piece.size)):
        preconditioned = piece.precondition(tasks.read(piece, task_band, device))
        task_rows = {
            name: preconditioned.pop(name).reshape(task_band.stop - task_band.start, -1) for name in piece.names
        }
        for domain_band in bands(domains.count, room.rows_beside(task_band.stop - task_band.start, piece.size)):
            products_NN[task_band, domain_band] += _products(task_rows, domains.read(piece, domain_band, device))
        del task_rows  # or it would live on while the next band is preconditioned


def _products(task_rows: Mapping[str, Tensor], domain_rows: Mapping[str, Tensor]) -> Floats:
    by_parameter = [dots(task_rows[name], values.reshape(len(values), -1)) for name, values in domain_rows.items()]
    summed: Floats = torch.stack(by_parameter).sum(0).cpu().numpy()
    return summed


def dots(task_rows_Np: Tensor, domain_rows_Np: Tensor) -> Tensor:
    """Multiply rows with rows, slab by slab in the precision of the domains' and over slabs in float64."""
    dots_NN = task_rows_Np.new_zeros(len(task_rows_Np), len(domain_rows_Np), dtype=torch.float64)
    for task_slab, domain_slab in zip(
        torch.split(task_rows_Np, DOT_SLAB, 1), torch.split(domain_rows_Np, DOT_SLAB, 1), strict=True
    ):
        dots_NN += task_slab.to(domain_slab.dtype) @ domain_slab.T
    return dots_NN


def bands(count: int, most: int) -> Iterator[slice]:
    """Cut `count` rows into as few bands as `most` allows, of nearly equal size."""
    number = ceil(count / most)
    for start, stop in pairwise(round(count * band / number) for band in range(number + 1)):
        yield slice(start, stop)
