"""Gradient chunks on disk, so that another curvature, damping or mixture needs no backward pass.

    gradients.json                     which chunks belong to the measurement, in order
    <side>-<set>/<chunk>.safetensors    one mean gradient, with its loss, its cost and the identity of what it is of

A set is measured in gradient chunks, each with a mean gradient of its own. A chunk counts only under its identity: a
hash of the checkpoint, the code, the precision, and the chunk's tokens and loss mask. What is left of another
checkpoint is removed; chunks of this one that the present sets do not name are kept, since the sets may come back.
Disk: the trainable parameters, in float32 or bfloat16, once per chunk.

Axes: N chunks.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args
from urllib.parse import quote

import torch
from torch import Tensor

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, write_json
from tikmix_pipeline.influence.gradients import MeanGradient, sequences
from tikmix_pipeline.influence.rounding import generator_of, to_bfloat16
from tikmix_pipeline.influence.tensor_file import TensorFile
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.parameters.measurement import KeptPrecision

Side = Literal["task", "domain"]

Sets = Mapping[Side, Mapping[str, Sequence[Sequence[TokenBatch]]]]
"""By side and by name, the chunks of every set, each a list of batches."""

_INDEX = "gradients.json"
_DESCRIPTION = "part"
_CHUNK_FILE = re.compile(r"\.?\d{4,}\.safetensors(?P<half_written>\.\d+\.tmp)?")


@dataclass(frozen=True)
class ChunkFigures:
    """What a chunk says of itself, beside its gradient."""

    key: str
    """Names the checkpoint and the code."""
    identity: str
    """Names all that decides its gradient (`chunk_identity`)."""
    loss: float
    """Mean, in nats per loss-carrying token, of multiple choice per item."""
    loss_tokens: int
    """Or items of multiple choice."""
    cost: Cost

    @classmethod
    def of(cls, file: TensorFile) -> "ChunkFigures | None":
        """Read what a file says; nothing if a version wrote it that did not say what a chunk cost."""
        content = json.loads(file.metadata.get(_DESCRIPTION, "{}"))
        if "cost" not in content:
            return None
        return cls.of_dict(content)

    @classmethod
    def of_dict(cls, content: Mapping[str, Any]) -> "ChunkFigures":
        """Read what `dataclasses.asdict` returned."""
        return cls(**{**content, "cost": Cost(**content["cost"])})


_Chunk = tuple[TensorFile, ChunkFigures]


def chunk_identity(chunk: Sequence[TokenBatch], key: str, precision: str) -> str:
    """Name a chunk by all that decides its gradient; padding and the cut into batches do not."""
    digest = hashlib.sha256(f"{key} {precision}".encode())
    for tokens_S, loss_S in sequences(chunk):
        digest.update(len(tokens_S).to_bytes(8, "little"))
        digest.update(tokens_S.tobytes())
        digest.update(loss_S.tobytes())
    for batch in chunk:
        for item in batch.items() if isinstance(batch, ChoiceBatch) else ():
            digest.update(item.bytes_B.tobytes() + item.options_I.tobytes() + item.gold_I.tobytes())
    return digest.hexdigest()


class MeasuredSets(Protocol):
    """Tasks and domains that were measured in chunks."""

    def sets(self, side: Side) -> tuple[str, ...]:
        """Return the names of the sets of one side, in their order."""

    def figures(self, side: Side, name: str) -> list[ChunkFigures]:
        """Return loss and size of every chunk of a set."""


class GradientStore:
    """A folder of gradient chunks; each process of `mesh` has a store of this folder and makes the same calls."""

    def __init__(self, folder: Path, mesh: Mesh = SINGLE_MESH, precision: KeptPrecision = "float32") -> None:
        """Take the folder, and the precision that chunks are written in: `bfloat16` rounds them stochastically."""
        self.folder = folder
        self.mesh = mesh
        self.precision = precision
        self._collected: _Collected | None = None

    def sets(self, side: Side) -> tuple[str, ...]:
        """Return the names of the sets of one side, in the order they were collected in.

        A collection that is not finished, or has a chunk missing, damaged or of something else, raises a TikmixError.
        """
        return tuple(name for of_side, name in self._read().sets if of_side == side)

    def figures(self, side: Side, name: str) -> list[ChunkFigures]:
        """Return loss and size of every chunk of a set; errors as `sets`, and if there is none of that name."""
        return [figures for _, figures in self._chunks(side, name)]

    @property
    def is_finished(self) -> bool:
        """Whether a collection was finished."""
        return (self.folder / _INDEX).is_file()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter that gradients were taken by."""
        return self._any_file().shapes

    def dtype(self, parameter: str) -> torch.dtype:
        """Return the precision that the gradients by one parameter are read in, float32 at least."""
        return torch.promote_types(self._any_file().dtype(parameter), torch.float32)

    def kept_dtype(self, values: Tensor) -> torch.dtype:
        """Return the precision that a gradient is written in."""
        return torch.bfloat16 if self.precision == "bfloat16" else values.dtype

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the collection wrote about itself."""
        return self._read().notes

    @property
    def cost(self) -> Cost:
        """What its chunks took, each once whenever it was measured, and what was spent on choosing their number."""
        collected = self._read()
        return sum((figures.cost for chunks in collected.sets.values() for _, figures in chunks), collected.choosing)

    def rows(
        self,
        side: Side,
        names: Sequence[str],
        parameter: str,
        span: tuple[int, int] | None = None,
        *,
        only: slice = slice(None),
    ) -> Tensor:
        """Read the gradients of sets by one parameter, chunk after chunk: (N, *shape), on the CPU.

        Read is `span` of the parameter's first axis, if it is given, and `only` some of the N chunks.

        Raises:
            TikmixError: there is no such set or parameter, or a file is damaged.
        """
        files = [file for name in names for file, _ in self._chunks(side, name)][only]
        shape = self.shapes().get(parameter)
        if shape is None:
            raise TikmixError(
                f"{self.folder} holds no gradients by {parameter}. They are of another model: collect them again."
            )
        start = 0
        if span is not None:
            start, shape = span[0], (span[1] - span[0], *shape[1:])
        rows = torch.empty(len(files), *shape, dtype=self.dtype(parameter))
        for row, file in zip(rows, files, strict=True):
            kept = torch.empty(row.shape, dtype=file.dtype(parameter)) if file.dtype(parameter) != row.dtype else row
            file.read_into(parameter, kept, start)
            row.copy_(kept)
        return rows

    def holds(self, side: Side, name: str, chunk: int, identity: str) -> bool:
        """Tell whether a chunk is there, whole and of this identity."""
        figures = _figures_at(self.path(side, name, chunk))
        return figures is not None and figures.identity == identity

    def write(
        self, side: Side, name: str, chunk: int, mean: MeanGradient, *, key: str, identity: str, cost: Cost
    ) -> None:
        """Write one chunk, whole or not at all; of several processes that share a copy each writes its shards."""
        path = self.path(side, name, chunk)
        figures = ChunkFigures(key, identity, mean.loss, mean.loss_tokens, cost)
        tensors = {name: (self.kept_dtype(values), tuple(values.shape)) for name, values in mean.gradient.items()}
        copy = self.mesh.shard
        with copy.replacing(path) as temporary:
            file = TensorFile.lay_out(temporary, tensors, {_DESCRIPTION: json.dumps(asdict(figures))}, copy)
            for parameter, values in mean.gradient.items():
                local, start = self.mesh.local_tensor(values)
                if self.precision == "bfloat16":
                    local = to_bfloat16(local, generator_of(f"{identity} {parameter} {start}"))
                file.write(parameter, local, start)

    def forget(self) -> None:
        """Forget which chunks belong to the measurement; they stay."""
        self._collected = None
        (self.folder / _INDEX).unlink(missing_ok=True)

    def begin(self, key: str) -> None:
        """Forget which chunks belong to the measurement, and remove those that no measurement of `key` could use."""
        self._collected = None
        if self.mesh.world.is_rank_zero:
            self.forget()
            for folder in (folder for side in get_args(Side) for folder in self.folder.glob(f"{side}-*/")):
                _clear(folder, key)
        self.mesh.world.barrier()

    def finish(
        self, identities: Mapping[Side, Mapping[str, Sequence[str]]], notes: Mapping[str, Any], choosing: Cost = NO_COST
    ) -> None:
        """Record which chunks, by side and set, the measurement is made of, once all of them are there.

        `notes` are JSON-able values; `choosing` is what was spent on finding out how many chunks are enough.
        """
        sets = [
            {"side": side, "name": name, "parts": list(chunks)}
            for side, by_name in identities.items()
            for name, chunks in by_name.items()
        ]
        content = {"version": 2, "sets": sets, "notes": dict(notes), "choosing": choosing.to_dict()}
        self.mesh.world.barrier()
        if self.mesh.world.is_rank_zero:
            write_json(self.folder / _INDEX, content)
        self.mesh.world.barrier()
        self._collected = None

    def path(self, side: Side, name: str, chunk: int) -> Path:
        """Return where a chunk stands."""
        return self.folder / f"{side}-{quote(name, safe='')}" / f"{chunk:04d}.safetensors"

    def _read(self) -> "_Collected":
        """Read the index, and the header of every chunk once."""
        if self._collected is None:
            index = self.folder / _INDEX
            if not index.is_file():
                raise TikmixError(f"{self.folder} holds no finished collection of gradients. Collect them first.")
            found = read_json(index)
            sets = {
                (entry["side"], entry["name"]): [
                    self._chunk(entry["side"], entry["name"], *chunk) for chunk in enumerate(entry["parts"])
                ]
                for entry in found["sets"]
            }
            self._collected = _Collected(sets, found["notes"], Cost(**found["choosing"]))
        return self._collected

    def _chunk(self, side: Side, name: str, chunk: int, identity: str) -> _Chunk:
        file = TensorFile.open(self.path(side, name, chunk))
        figures = ChunkFigures.of(file)
        if figures is None or figures.identity != identity:
            raise TikmixError(
                f"{file.path} is not the gradient that was collected: it is of another checkpoint, text or setting. "
                "Collect the gradients again."
            )
        return file, figures

    def _chunks(self, side: Side, name: str) -> list[_Chunk]:
        chunks = self._read().sets.get((side, name))
        if chunks is None:
            raise TikmixError(f"{self.folder} holds no gradients of the {side} '{name}'. Collect them first.")
        return chunks

    def _any_file(self) -> TensorFile:
        for chunks in self._read().sets.values():
            return chunks[0][0]
        raise TikmixError(f"{self.folder} holds no gradients. Collect them first.")


@dataclass(frozen=True)
class _Collected:
    """The chunks of a finished collection."""

    sets: Mapping[tuple[str, str], list[_Chunk]]
    notes: Mapping[str, Any]
    choosing: Cost


def _clear(folder: Path, key: str) -> None:
    for path in list(folder.iterdir()):
        found = _CHUNK_FILE.fullmatch(path.name)
        figures = _figures_at(path) if found and not found["half_written"] else None
        if found and (figures is None or figures.key != key):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _figures_at(path: Path) -> ChunkFigures | None:
    """Read what a chunk says of itself; nothing if it is missing, damaged or of no use."""
    try:
        return ChunkFigures.of(TensorFile.open(path))
    except TikmixError:
        return None
