"""The gradient chunks of all tasks, multiplied by the curvature, on disk parameter by parameter.

    raw.json                    which chunks are measured so far
    <number>.raw.safetensors    their gradients by one parameter, until these are multiplied
    <number>.safetensors        f(C) times them
    flops.json                  what that took, by block

One file per parameter, not per chunk: a block of the curvature is opened once for all chunks, and what it has been
multiplied into takes the place of what it was multiplied with. So the disk holds every chunk once, in bfloat16 (rounded
stochastically, twice) or, of float64 weights, as it is. A kill loses one chunk, or one block.

Axes: N = T·M task chunks, n some of them, p scalars of a parameter or of a slab of it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tikmix_pipeline.files import read_json, remove, require_space, write_json
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.gradients import Gradient, MeanGradient
from tikmix_pipeline.influence.products import Room, bands, cut
from tikmix_pipeline.influence.rounding import generator_of, to_bfloat16
from tikmix_pipeline.influence.standard_error import Floats
from tikmix_pipeline.influence.store import ChunkFigures
from tikmix_pipeline.influence.tensor_file import TensorFile
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.progress import progress_bar

_MEASURED = "raw.json"
_FLOPS = "flops.json"
_ROWS = "rows"
_SLAB = 1 << 17
"""Scalars of every row that are read, and raised to float32, at a time."""
_SUMMED = 1 << 14
"""Scalars that are summed in the precision of the gradient; from there on sums are in float64."""


@dataclass(frozen=True)
class TaskRows:
    """The rows of N task chunks in a folder of their own, under a key that names checkpoint, chunks and curvature."""

    folder: Path
    key: str
    shapes: Mapping[str, tuple[int, ...]]
    """Of the parameters that the curvature covers."""
    count: int
    dtype: torch.dtype
    """That gradients are summed in."""

    @property
    def kept_dtype(self) -> torch.dtype:
        """The precision on disk."""
        return torch.float64 if self.dtype == torch.float64 else torch.bfloat16

    def measured(self, *, with_rows: bool) -> list[ChunkFigures]:
        """Return what the chunks say of themselves that are measured so far, in order; what is of another key goes.

        `with_rows` counts them only if their rows are still there.
        """
        content = read_json(self.folder / _MEASURED) if (self.folder / _MEASURED).is_file() else {}
        if content.get("key") != self.key or (with_rows and not all(map(self._is_there, self.shapes))):
            remove(self.folder)
            return []
        return [ChunkFigures(**one | {"cost": Cost(**one["cost"])}) for one in content["chunks"]]

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
        for name in self.shapes:
            file = self._file(name, raw=True) if before else self._lay_out(self._path(name, raw=True), name)
            values = self._kept(mean.gradient[name], f"{self.key} {name} {len(before)}")
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
            for number, outline in enumerate(curvature.outlines):
                if not all(self._path(name).is_file() for name in outline.names):
                    block = curvature[number]
                    self._multiply_block(block, room, device)
                    flops[str(number)] = block.flops(self.count)
                    write_json(self.folder / _FLOPS, flops)
                for name in outline.names:
                    remove(self._path(name, raw=True))
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
        for name in self.shapes:
            file = self._file(name)
            flat_p = gradient[name].reshape(-1)
            for start in range(0, flat_p.numel(), _SLAB):
                some_p = flat_p[start : start + _SLAB]
                total_N += _dots(self._slab(file, start, len(some_p), flat_p.numel()).to(some_p.device), some_p)
        return total_N

    def _slab(self, file: TensorFile, start: int, length: int, size: int) -> Tensor:
        rows_Np = torch.empty(self.count, length, dtype=self.kept_dtype)
        for number, row_p in enumerate(rows_Np):
            file.read_flat(_ROWS, row_p, number * size + start)
        return rows_Np

    def _multiply_block(self, block: EigenBlock, room: Room, device: torch.device) -> None:
        raw = {name: self._file(name, raw=True) for name in block.names}
        made = {name: self._path(name).with_suffix(".part") for name in block.names}
        files = {name: self._lay_out(path, name) for name, path in made.items()}
        for piece in cut(block, room, self.count):
            for band in bands(self.count, max(1, room.task_rows(piece.size))):
                rows = {name: self._read(raw[name], name, band, piece).to(device) for name in block.names}
                for name, values in piece.precondition(rows).items():
                    self._write(files[name], name, band, piece, values)
        for name, path in made.items():
            path.replace(self._path(name))

    def _read(self, file: TensorFile, name: str, band: slice, piece: EigenBlock) -> Tensor:
        shape, start = self._within(name, piece)
        rows = torch.empty(band.stop - band.start, *shape, dtype=self.kept_dtype)
        for number, row in enumerate(rows, band.start):
            file.read_flat(_ROWS, row, number * torch.Size(self.shapes[name]).numel() + start)
        return rows.to(self.dtype)

    def _write(self, file: TensorFile, name: str, band: slice, piece: EigenBlock, values: Tensor) -> None:
        _, start = self._within(name, piece)
        size = torch.Size(self.shapes[name]).numel()
        for number, row in enumerate(values, band.start):
            kept = self._kept(row, f"{self.key} {name} {number} {start} multiplied")
            file.write_flat(_ROWS, kept, number * size + start)

    def _within(self, name: str, piece: EigenBlock) -> tuple[tuple[int, ...], int]:
        """Return the shape of a parameter's slice that a piece covers, and where in the parameter it begins."""
        shape = self.shapes[name]
        if piece.span is None:
            return shape, 0
        first, last = piece.span
        return (last - first, *shape[1:]), first * torch.Size(shape[1:]).numel()

    def _kept(self, values: Tensor, identity: str) -> Tensor:
        if self.kept_dtype == torch.bfloat16:
            return to_bfloat16(values, generator_of(identity))
        return values.detach().cpu().contiguous()

    def _is_there(self, name: str) -> bool:
        return self._path(name).is_file() or self._path(name, raw=True).is_file()

    def _lay_out(self, path: Path, name: str) -> TensorFile:
        return TensorFile.lay_out(path, {_ROWS: (self.kept_dtype, (self.count, *self.shapes[name]))}, {})

    def _file(self, name: str, *, raw: bool = False) -> TensorFile:
        return TensorFile.open(self._path(name, raw=raw))

    def _path(self, name: str, *, raw: bool = False) -> Path:
        return self.folder / f"{list(self.shapes).index(name):05d}{'.raw' if raw else ''}.safetensors"


def _dots(rows_Np: Tensor, gradient_p: Tensor) -> Floats:
    parts = zip(torch.split(rows_Np, _SUMMED, 1), torch.split(gradient_p, _SUMMED), strict=True)
    sums_N = torch.stack([rows_n.to(some_p.dtype) @ some_p for rows_n, some_p in parts]).double().sum(0)
    summed: Floats = sums_N.cpu().numpy()
    return summed
