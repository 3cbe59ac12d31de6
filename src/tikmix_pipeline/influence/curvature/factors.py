"""`Factors`: what a fit of the Fisher found, before any inverse, as an artifact.

    factors.json          kind, labels, tokens, cost, and per layer which tensors it is made of
    factors.safetensors   the tensors

| kind | per linear layer | embedding | head | tied embedding and head |
|---|---|---|---|---|
| diagonal | eigenvalues | eigenvalues | eigenvalues | eigenvalues |
| kfac | output G, input A | frequency f, output G | variance d, input A | all four |
| ekfac | rows, columns, eigenvalues | columns, eigenvalues | columns, eigenvalues | columns, eigenvalues |

Layers that share an input name the same tensor. Elementwise layers have their diagonal as eigenvalues in every kind.
Everything is per loss-carrying token, in float32, or float64 for float64 weights. Of the Kronecker factors, which are
symmetric, the file holds the lower triangle, row by row.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS, ProcessGroup, share_out
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, write_json
from tikmix_pipeline.influence.curvature.layers import Layout
from tikmix_pipeline.influence.tensor_file import TensorFile
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.parameters.measurement import Group

Kind = Literal["diagonal", "kfac", "ekfac"]
Labels = Literal["true", "empirical"]

_JSON = "factors.json"
_TENSORS = "factors.safetensors"
_VERSION = 3


@dataclasses.dataclass(frozen=True)
class LayerFactors:
    """What the block of one layer is made of."""

    layer: str
    group: Group
    kind: str
    """How the block is approximated, for the report."""
    layout: Layout
    tensors: Mapping[str, str]
    """Name in `Factors.tensors` by role."""


@dataclasses.dataclass(frozen=True)
class Factors:
    """The Fisher per token at a checkpoint, in the form that its kind asks for.

    Attributes:
        fisher: labels sampled from the model (`true`) or those of the text (`empirical`).
        seed: decides the sampled labels.
        loss_tokens: how many tokens it was estimated from.
        groups: groups of parameters that are in it.
        tensors: Kronecker factors, eigenvectors and eigenvalues by name.
        cost: what the fit took; a token counts once for every pass.
    """

    kind: Kind
    fisher: Labels
    seed: int
    loss_tokens: int
    groups: tuple[Group, ...]
    layers: tuple[LayerFactors, ...]
    tensors: Mapping[str, Tensor]
    cost: Cost = NO_COST

    def save(self, folder: Path, process_group: ProcessGroup = SINGLE_PROCESS) -> None:
        """Replace a folder by the artifact, whole or not at all.

        The processes of the group keep the tensors between them; each calls this, and writes its own.
        """
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        symmetric = self._symmetric()
        mine = {
            name: (values.dtype, (_triangle(len(values)),) if name in symmetric else tuple(values.shape))
            for name, values in self.tensors.items()
        }
        tensors = {name: kept for some in process_group.all_gather_object(mine) for name, kept in some.items()}
        content |= {"version": _VERSION, "tensors": sorted(tensors), "cost": self.cost.to_dict()}
        content["symmetric"] = sorted(symmetric)
        content["layers"] = [dataclasses.asdict(layer) for layer in self.layers]
        with process_group.replacing(folder) as temporary:
            if process_group.is_rank_zero:
                temporary.mkdir()
                write_json(temporary / _JSON, content)
            file = TensorFile.lay_out(temporary / _TENSORS, tensors, {}, process_group)
            for name, values in self.tensors.items():
                file.write(name, values.cpu()[_lower(len(values))] if name in symmetric else values)

    def _symmetric(self) -> set[str]:
        """Name the tensors of all processes that are symmetric."""
        roles = ("input", "output") if self.kind == "kfac" else ()
        return {layer.tensors[role] for layer in self.layers for role in roles if role in layer.tensors}

    @classmethod
    def load(cls, folder: Path) -> "Factors":
        """Open the artifact, or raise a TikmixError; a tensor is read, to the CPU, when it is asked for."""
        try:
            content: dict[str, Any] = read_json(folder / _JSON)
            symmetric = frozenset(content.pop("symmetric", ()))
            tensors = _TensorsOnDisk(TensorFile.open(folder / _TENSORS), symmetric)
            if content.pop("version") != _VERSION or content.pop("tensors") != sorted(tensors):
                raise ValueError("of another version, or not all tensors are there")
            layers = tuple(
                LayerFactors(**layer | {"layout": Layout(**layer["layout"])}) for layer in content.pop("layers")
            )
            typed = {"groups": tuple(content["groups"]), "cost": Cost(**content["cost"])}
            return cls(**content | typed, layers=layers, tensors=tensors)
        except (OSError, TikmixError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise TikmixError(
                f"The factors of the curvature in {folder} are damaged ({error}). Delete that folder and fit again."
            ) from error

    @property
    def folder(self) -> Path | None:
        """Where the artifact lies, of one that was opened."""
        return self.tensors.file.path.parent if isinstance(self.tensors, _TensorsOnDisk) else None

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes by tensor; nothing is read for them."""
        if isinstance(self.tensors, _TensorsOnDisk):
            return {name: self.tensors.shape(name) for name in self.tensors}
        return {name: tuple(values.shape) for name, values in self.tensors.items()}

    def names_for(self, process_group: ProcessGroup) -> set[str]:
        """Name the layers that fall to this process: about as much work to decompose and to use as to any other.

        Layers that share a factor go to one process, which decomposes it once.
        """
        units: dict[str, list[LayerFactors]] = {}
        for layer in self.layers:
            unit = layer.tensors.get("input") or layer.tensors.get("columns") or layer.layer
            units.setdefault(unit, []).append(layer)
        owners = share_out([sum(map(self._work, layers)) for layers in units.values()], process_group.world_size)
        owned = zip(owners, units.values(), strict=True)
        return {layer.layer for owner, layers in owned if owner == process_group.rank for layer in layers}

    def _work(self, layer: LayerFactors) -> float:
        """Return the scalars of a block times the rows of its dense sides, in proportion to the work with it."""
        shapes = [self.shapes[name] for name in layer.tensors.values()]
        sides = [shape[0] for shape in shapes]
        dense = [shape[0] for shape in shapes if len(shape) == 2 and shape[0] == shape[1]]
        return float(max(sides) * min(sides) * max(1, sum(dense)))


@dataclasses.dataclass(frozen=True)
class _TensorsOnDisk(Mapping[str, Tensor]):
    """The tensors of a file, each read anew when it is asked for."""

    file: TensorFile
    symmetric: frozenset[str]

    def __getitem__(self, name: str) -> Tensor:
        values = torch.empty(self.file.shapes[name], dtype=self.file.dtype(name))
        self.file.read_into(name, values)
        if name not in self.symmetric:
            return values
        whole = values.new_empty(self.shape(name))
        rows, columns = _lower(len(whole))
        whole[rows, columns] = whole[columns, rows] = values
        return whole

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, of which nothing is read."""
        shape = self.file.shapes[name]
        if name not in self.symmetric:
            return shape
        size = (isqrt(8 * shape[0] + 1) - 1) // 2
        return size, size

    def __iter__(self) -> Iterator[str]:
        return iter(self.file.shapes)

    def __len__(self) -> int:
        return len(self.file.shapes)


def _triangle(size: int) -> int:
    """Return the scalars of a triangle, diagonal included."""
    return size * (size + 1) // 2


def _lower(size: int) -> tuple[Tensor, Tensor]:
    """Return the rows and the columns of the scalars of a lower triangle."""
    rows, columns = torch.tril_indices(size, size)
    return rows, columns
