"""`Factors`: what a fit of the Fisher found, before any inverse, as an artifact.

    factors.json          kind, labels, tokens, cost, and per layer which tensors it is made of
    factors.safetensors   the tensors

| kind | per linear layer | embedding | head | tied embedding and head |
|---|---|---|---|---|
| diagonal | eigenvalues | eigenvalues | eigenvalues | eigenvalues |
| kfac | output G, input A | frequency f, output G | variance d, input A | all four |
| ekfac | rows, columns, eigenvalues | columns, eigenvalues | columns, eigenvalues | columns, eigenvalues |

Layers that share an input name the same tensor. Elementwise layers have their diagonal as eigenvalues in every kind.
Everything is per loss-carrying token, in float32, or float64 for float64 weights.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, replacing, write_json
from tikmix_pipeline.influence.curvature.layout import Layout
from tikmix_pipeline.lm.cost import NO_COST, Cost
from tikmix_pipeline.parameters.measurement import Group

Kind = Literal["diagonal", "kfac", "ekfac"]
Labels = Literal["true", "empirical"]

_JSON = "factors.json"
_TENSORS = "factors.safetensors"
_VERSION = 2


@dataclasses.dataclass(frozen=True)
class LayerFactors:
    """What one block is made of.

    Attributes:
        layer: name of the layer.
        group: the group that its parameters are of.
        kind: how the block is approximated, for the report.
        layout: which parameters, and how they form a matrix.
        tensors: name in `Factors.tensors` by role.
    """

    layer: str
    group: Group
    kind: str
    layout: Layout
    tensors: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Factors:
    """The Fisher per token at a checkpoint, in the form that its kind asks for.

    Attributes:
        kind: the approximation.
        fisher: labels sampled from the model (`true`) or those of the text (`empirical`).
        seed: of the sampled labels.
        loss_tokens: how many tokens it was estimated from.
        groups: groups of parameters that are in it.
        layers: what each block is made of.
        tensors: moments, eigenvectors and eigenvalues by name.
        cost: of the fit; a token counts once for every pass.
    """

    kind: Kind
    fisher: Labels
    seed: int
    loss_tokens: int
    groups: tuple[Group, ...]
    layers: tuple[LayerFactors, ...]
    tensors: Mapping[str, Tensor]
    cost: Cost = NO_COST

    def save(self, folder: Path) -> None:
        """Write the artifact, whole or not at all."""
        from safetensors.torch import save_file

        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content |= {"version": _VERSION, "tensors": sorted(self.tensors), "cost": self.cost.to_dict()}
        content["layers"] = [dataclasses.asdict(layer) for layer in self.layers]
        with replacing(folder) as temporary:
            temporary.mkdir()
            tensors = {name: values.contiguous() for name, values in self.tensors.items()}
            save_file(tensors, temporary / _TENSORS)
            write_json(temporary / _JSON, content)

    @classmethod
    def load(cls, folder: Path) -> "Factors":
        """Read the artifact to the CPU.

        Raises:
            TikmixError: it is missing, damaged or of another version.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: dict[str, Any] = read_json(folder / _JSON)
            tensors: dict[str, Tensor] = load_file(folder / _TENSORS)
            if content.pop("version") != _VERSION or content.pop("tensors") != sorted(tensors):
                raise ValueError("of another version, or not all tensors are there")
            layers = tuple(
                LayerFactors(**layer | {"layout": Layout(**layer["layout"])}) for layer in content.pop("layers")
            )
            typed = {"groups": tuple(content["groups"]), "cost": Cost(**content["cost"])}
            return cls(**content | typed, layers=layers, tensors=tensors)
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise TikmixError(
                f"The factors of the curvature in {folder} are damaged ({error}). Delete that folder and fit again."
            ) from error
