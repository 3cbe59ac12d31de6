"""The gradient chunks of all tasks, multiplied by the curvature, on disk segment by segment.

    raw.json                    which chunks are measured so far
    <number>.raw.safetensors    their gradients by one segment, until these are multiplied
    <number>.safetensors        f(C) times them
    flops.json                  what that took, by block

A segment is a parameter, or some rows of one that is large and whose curvature does not mix rows. One file holds it for
all chunks: a block of the curvature is opened once for all of them, and what it has been multiplied into takes the
place of what it was multiplied with. So the disk holds every chunk once, and one segment twice, in bfloat16 (rounded
stochastically, twice) or, of float64 weights, as it is. A kill loses one chunk, or one segment.

Axes: N = T·M task chunks, n some of them, p scalars of a parameter or of a slab of it.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from tikmix_pipeline.files import read_json, remove, require_space, write_json
from tikmix_pipeline.influence.curvature.build import BlockOutline, Curvature
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.gradients import Gradient, MeanGradient
from tikmix_pipeline.influence.products import Room, bands, cut, dots
from tikmix_pipeline.influence.rounding import generator_of, to_bfloat16
from tikmix_pipeline.influence.standard_error import Floats
from tikmix_pipeline.influence.store import ChunkFigures
from tikmix_pipeline.influence.tensor_file import TensorFile
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.progress import progress_bar
from tikmix_pipeline.read_ahead import read_ahead

_MEASURED = "raw.json"
_FLOPS = "flops.json"
_ROWS = "rows"
_SEGMENT_BYTES = 1 << 25
"""Of a file, where a parameter can be cut."""
_SLAB = 1 << 18
"""Scalars of every row that are read at a time."""


@dataclass(frozen=True)
class _Segment:
    """Rows `start` to `stop`, along the first axis, of a parameter."""

    name: str
    start: int
    stop: int
    number: int
    """Of its file."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Scalars of a chunk."""
        return torch.Size(self.shape).numel()

    def of(self, values: Tensor) -> Tensor:
        """Return what of a parameter, or of its gradient, is in the segment."""
        return values[self.start : self.stop] if values.ndim else values


@dataclass(frozen=True)
class TaskRows:
    """The rows of N task chunks in a folder of their own, under a key that names checkpoint, chunks and curvature."""

    folder: Path
    key: str
    outlines: Sequence[BlockOutline]
    """Of the curvature."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of the parameters that the curvature covers."""
    count: int
    dtype: torch.dtype
    """That gradients are summed in."""

    @property
    def kept_dtype(self) -> torch.dtype:
        """The precision on disk."""
        return torch.float64 if self.dtype == torch.float64 else torch.bfloat16

    @cached_property
    def _segments(self) -> list[list[list[_Segment]]]:
        """The segments of every block, cut alike for all of its parameters: by block, by cut and by parameter."""
        numbers = itertools.count()
        return [
            [[self._segment(name, cut_off, next(numbers)) for name in outline.names] for cut_off in self._cuts(outline)]
            for outline in self.outlines
        ]

    def _segment(self, name: str, cut_off: tuple[int, int] | None, number: int) -> _Segment:
        shape = self.shapes[name]
        if cut_off is None:
            return _Segment(name, 0, shape[0] if shape else 1, number, shape)
        start, stop = cut_off
        return _Segment(name, start, stop, number, (stop - start, *shape[1:]))

    def _cuts(self, outline: BlockOutline) -> list[tuple[int, int] | None]:
        """Return which rows are in each segment of a block's parameters; None stands for all."""
        wanted = ceil(outline.size * self.count * self.kept_dtype.itemsize / _SEGMENT_BYTES)
        if not outline.is_divisible or wanted <= 1:
            return [None]
        rows = self.shapes[outline.names[0]][0]
        cuts = min(rows, wanted)
        return list(pairwise(rows * cut // cuts for cut in range(cuts + 1)))

    def _every(self) -> Iterator[_Segment]:
        return (segment for of_block in self._segments for together in of_block for segment in together)

    def measured(self, *, with_rows: bool) -> list[ChunkFigures]:
        """Return what the chunks say of themselves that are measured so far, in order; what is of another key goes.

        `with_rows` counts them only if their rows are still there.
        """
        content = read_json(self.folder / _MEASURED) if (self.folder / _MEASURED).is_file() else {}
        if content.get("key") != self.key or (with_rows and not all(map(self._is_there, self._every()))):
            remove(self.folder)
            return []
        return [ChunkFigures.of_dict(one) for one in content["chunks"]]

    def discard(self) -> None:
        """Remove the rows, once nothing is to be multiplied with them any more; what is known of them stays."""
        for path in self.folder.glob("*.safetensors"):
            path.unlink()

    def require_space(self) -> None:
        """Raise a TikmixError if the disk cannot hold the rows that are not there yet."""
        scalars = sum(torch.Size(shape).numel() for shape in self.shapes.values())
        there = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))
        require_space(
            self.folder,
            max(0, scalars * self.count * self.kept_dtype.itemsize - there),
            f"The gradients of {self.count} chunks of the tasks",
            "lower influence.micro_batches, or name fewer influence.tasks",
        )

    def write_measured(self, mean: MeanGradient, figures: ChunkFigures, before: Sequence[ChunkFigures]) -> None:
        """Write the gradient of the chunk that follows those `before`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for one in self._every():
            path = self._path(one, raw=True)
            file = TensorFile.open(path) if before else self._lay_out(path, one)
            values = self._kept(one.of(mean.gradient[one.name]), f"{self.key} {one.number} {len(before)}")
            file.write(_ROWS, values[None], len(before))
        chunks = [dataclasses.asdict(one) for one in [*before, figures]]
        write_json(self.folder / _MEASURED, {"key": self.key, "chunks": chunks})

    def multiply(self, curvature: Curvature, *, memory_megabytes: float, device: torch.device) -> Cost:
        """Put f(C) times the rows in the place of the rows, block by block, once all of them are measured.

        Raises:
            TikmixError: one row of a block that cannot be cut does not fit into the memory.
        """
        room = Room(int(memory_megabytes * 1e6), self.dtype.itemsize)
        room.require_for(curvature.outlines)
        flops = self._spent()
        with progress_bar("Curvature of the tasks", len(curvature), "block") as bar:
            for number, cuts in enumerate(self._segments):
                missing = [together for together in cuts if not all(self._path(one).is_file() for one in together)]
                block = curvature[number] if missing else None
                for together in missing:
                    self._multiply(cast("EigenBlock", block), together, room, device)
                if block is not None:
                    flops[str(number)] = block.flops(self.count)
                    write_json(self.folder / _FLOPS, flops)
                bar.update(1)
        return self.multiplying_cost

    @property
    def multiplying_cost(self) -> Cost:
        """What `multiply` took, whenever it was done."""
        return Cost(flops=sum(self._spent().values()))

    def _spent(self) -> dict[str, float]:
        path = self.folder / _FLOPS
        return read_json(path) if path.is_file() else {}

    def products_with(self, gradient: Gradient) -> Floats:
        """Return the products of every row with a gradient, (N,), float64."""
        total_N = np.zeros(self.count)
        for one, start, rows_Np in read_ahead(self._slabs()):
            some_p = one.of(gradient[one.name]).reshape(-1)[start : start + rows_Np.shape[1]]
            total_N += dots(rows_Np.to(some_p.device), some_p[None])[:, 0].cpu().numpy()
        return total_N

    def _slabs(self) -> Iterator[tuple[_Segment, int, Tensor]]:
        """Yield all rows slab by slab, with the segment of each and where in it that begins.

        A slab is good until the one after the next is asked for.
        """
        # taken in turns: one is used while the other is filled, and neither is new memory
        buffers = itertools.cycle([torch.empty(self.count * _SLAB, dtype=self.kept_dtype) for _ in range(2)])
        for one in self._every():
            file = TensorFile.open(self._path(one))
            for start in range(0, one.size, _SLAB):
                length = min(_SLAB, one.size - start)
                rows_Np = next(buffers)[: self.count * length].view(self.count, length)
                for number, row_p in enumerate(rows_Np):
                    file.read_flat(_ROWS, row_p, number * one.size + start)
                yield one, start, rows_Np

    def _multiply(self, block: EigenBlock, together: Sequence[_Segment], room: Room, device: torch.device) -> None:
        """Multiply the rows of segments that are cut alike, one per parameter of the block."""
        raw = {one.name: TensorFile.open(self._path(one, raw=True)) for one in together}
        made = {one: self._path(one).with_suffix(".part") for one in together}
        files = {one.name: self._lay_out(path, one) for one, path in made.items()}
        span = together[0].start, together[0].stop
        for piece in cut(block.slice(*span) if block.is_divisible else block, room, self.count):
            for band in bands(self.count, max(1, room.task_rows(piece.size))):
                rows = {one.name: self._read(raw[one.name], one, band, piece).to(device) for one in together}
                multiplied = piece.precondition(rows)
                for one in together:
                    self._write(files[one.name], one, band, piece, multiplied[one.name])
        for one, path in made.items():
            path.replace(self._path(one))
        for one in together:
            remove(self._path(one, raw=True))

    def _read(self, file: TensorFile, one: _Segment, band: slice, piece: EigenBlock) -> Tensor:
        shape, start = _within(one, piece)
        rows = torch.empty(band.stop - band.start, *shape, dtype=self.kept_dtype)
        for number, row in enumerate(rows, band.start):
            file.read_flat(_ROWS, row, number * one.size + start)
        return rows.to(self.dtype)

    def _write(self, file: TensorFile, one: _Segment, band: slice, piece: EigenBlock, values: Tensor) -> None:
        _, start = _within(one, piece)
        for number, row in enumerate(values, band.start):
            kept = self._kept(row, f"{self.key} {one.number} {number} {start} multiplied")
            file.write_flat(_ROWS, kept, number * one.size + start)

    def _kept(self, values: Tensor, identity: str) -> Tensor:
        if self.kept_dtype == torch.bfloat16:
            return to_bfloat16(values, generator_of(identity))
        return values.detach().cpu().contiguous()

    def _is_there(self, one: _Segment) -> bool:
        return self._path(one).is_file() or self._path(one, raw=True).is_file()

    def _lay_out(self, path: Path, one: _Segment) -> TensorFile:
        return TensorFile.lay_out(path, {_ROWS: (self.kept_dtype, (self.count, *one.shape))}, {})

    def _path(self, one: _Segment, *, raw: bool = False) -> Path:
        return self.folder / f"{one.number:05d}{'.raw' if raw else ''}.safetensors"


def _within(one: _Segment, piece: EigenBlock) -> tuple[tuple[int, ...], int]:
    """Return the shape of a segment's slice that a piece covers, and where in the segment it begins."""
    if piece.span is None:
        return one.shape, 0
    first, last = piece.span
    return (last - first, *one.shape[1:]), (first - one.start) * torch.Size(one.shape[1:]).numel()
