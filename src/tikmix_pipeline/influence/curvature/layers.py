"""The layers of a model that the Fisher has a block for, and the groups that all parameters fall into.

A group (`influence.groups`) is what a parameter is for: `embedding` looks tokens or positions up, `head` maps to
logits, `linear` is every other layer with a matrix, its bias included, and `elementwise` the rest. A parameter that
several modules share is of the first group in this order: embedding, head, linear, elementwise. Every parameter has a
group; the Fisher has a block for a layer only where the forward that runs is known.

Axes: N gradients, o rows of a block's matrix (outputs of a layer), i columns (inputs, and the bias).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tikmix_pipeline.distributed.process_group import ProcessGroup, share_out
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.gradients import trainable_parameters
from tikmix_pipeline.parameters.measurement import Group


@dataclass(frozen=True)
class Layout:
    """Names of a weight and of the bias that makes its last column, or of one parameter of any shape."""

    weight: str
    bias: str | None = None
    transposed: bool = False
    """The weight is stored as (inputs, outputs)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in the block."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def gather(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return the block of N gradients as N matrices, (N, o, i)."""
        matrix_Noi = rows[self.weight].mT if self.transposed else rows[self.weight]
        return matrix_Noi if self.bias is None else torch.cat([matrix_Noi, rows[self.bias][..., None]], dim=-1)

    def scatter(self, matrix_Noi: Tensor) -> dict[str, Tensor]:
        """Undo `gather`."""
        weight_Noi = matrix_Noi if self.bias is None else matrix_Noi[..., :-1]
        parts = {self.weight: weight_Noi.mT if self.transposed else weight_Noi}
        return parts if self.bias is None else parts | {self.bias: matrix_Noi[..., -1]}


_ORDER: tuple[Group, ...] = ("embedding", "head", "linear", "elementwise")


@runtime_checkable
class _NamesItsHead(Protocol):
    def get_output_embeddings(self) -> nn.Module | None: ...


@dataclass(frozen=True)
class Layer:
    """One module with trainable parameters of its own."""

    name: str
    module: nn.Module
    kind: Group
    """What the module is for, which decides the form of its block."""
    parameters: dict[str, str]
    """The model's name of each parameter by its name in the module, such as `weight`."""
    tied: bool = False
    """An embedding and a head share their weight; set on both."""

    @property
    def group(self) -> Group:
        """What its parameters count as; a tied head's weight is the embedding's."""
        return "embedding" if self.tied else self.kind

    @property
    def has_bias(self) -> bool:
        """Whether a trainable bias takes part."""
        return "bias" in self.parameters

    @property
    def size(self) -> int:
        """Scalars of all its parameters."""
        return sum(self.module.get_parameter(key).numel() for key in self.parameters)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Outputs, or the vocabulary, and inputs of its weight, one more for a bias; not of an elementwise layer."""
        outputs, inputs = self.module.get_parameter("weight").shape
        if self.layout.transposed:
            outputs, inputs = inputs, outputs
        return outputs, inputs + self.has_bias

    @property
    def layout(self) -> Layout:
        """How weight and bias form a matrix; of an elementwise layer they do not."""
        transposed = self.kind == "linear" and not isinstance(self.module, nn.Linear)
        return Layout(self.parameters["weight"], self.parameters.get("bias"), transposed=transposed)


def chosen_parameters(model: nn.Module, groups: Sequence[Group]) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of the chosen groups, by name, or raise a TikmixError if there are none."""
    owned = parameter_groups(model)
    chosen = {name: p for name, p in trainable_parameters(model).items() if owned[name] in groups}
    if not chosen:
        raise TikmixError(
            f"influence.groups ({', '.join(groups)}) holds no trainable parameter of this model. Its parameters are in "
            f"{', '.join(sorted(set(owned.values())))}; a head that is tied to the embedding belongs to embedding."
        )
    return chosen


def parameters_for(process_group: ProcessGroup, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return the parameters that fall to this process, about as many scalars as to any other."""
    owners = share_out([parameter.numel() for parameter in parameters.values()], process_group.world_size)
    shared = zip(owners, parameters.items(), strict=True)
    return {name: parameter for owner, (name, parameter) in shared if owner == process_group.rank}


def parameter_groups(model: nn.Module) -> dict[str, Group]:
    """Return the group of every trainable parameter, in the order of `named_parameters()`."""
    names = {id(parameter): name for name, parameter in trainable_parameters(model).items()}
    head = _head_of(model)
    found: dict[str, Group] = {}
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.Embedding):
            group: Group = "embedding"
        elif module is head:
            group = "head"
        else:
            group = "linear" if any(parameter.ndim > 1 for parameter in own) else "elementwise"
        for name in (names[id(p)] for p in own if id(p) in names):
            found[name] = min(group, found.get(name, group), key=_ORDER.index)
    return {name: found[name] for name in names.values()}


def find_layers(model: nn.Module, groups: Sequence[Group]) -> list[Layer]:
    """Assign every trainable parameter of the groups to one layer, or to an embedding and the head that share it.

    Raises:
        TikmixError: the groups hold no parameter, or one that belongs to no known kind of layer or is shared in any
            other way.
    """
    chosen = chosen_parameters(model, groups)
    names = {id(parameter): name for name, parameter in chosen.items()}
    head = _head_of(model)
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and _kind(m, head)}
    tied_weight = id(head.weight) if isinstance(head, nn.Linear) and id(head.weight) in embeddings else None
    layers: list[Layer] = []
    unknown: list[str] = []
    for name, module in model.named_modules():
        kind = _kind(module, head)
        own = {key: names[id(p)] for key, p in module.named_parameters(recurse=False) if id(p) in names}
        if kind is None or (kind != "elementwise" and "weight" not in own):
            unknown += own.values()
        elif own:
            tied = kind in ("embedding", "head") and id(module.weight) == tied_weight
            layers.append(Layer(name, module, kind, {"weight": own["weight"]} if tied else own, tied))
    _require_coverage(model, groups, list(chosen), layers, unknown)
    return layers


def _head_of(model: nn.Module) -> nn.Module | None:
    return model.get_output_embeddings() if isinstance(model, _NamesItsHead) else None


def _kind(module: nn.Module, head: nn.Module | None) -> Group | None:
    """Classify by the forward that runs: a subclass that overrides it computes something else."""
    from transformers.pytorch_utils import Conv1D

    forward = type(module).forward
    if forward is nn.Linear.forward:
        return "head" if module is head else "linear"
    if forward is Conv1D.forward:
        return "linear"
    if forward is nn.Embedding.forward:
        return "embedding"
    own = list(module.parameters(recurse=False))
    is_leaf = next(module.children(), None) is None
    return "elementwise" if own and is_leaf and all(p.ndim <= 1 for p in own) else None


def _require_coverage(
    model: nn.Module, groups: Sequence[Group], names: list[str], layers: list[Layer], unknown: list[str]
) -> None:
    owners = {name: [layer for layer in layers if name in layer.parameters.values()] for name in names}
    uncovered = [name for name, of in owners.items() if not of or name in unknown]
    shared = [
        name for name, of in owners.items() if len(of) > 1 and sorted(la.kind for la in of) != ["embedding", "head"]
    ]
    if uncovered or shared:
        reason = "does not know the kind of layer of" if uncovered else "cannot handle layers that share"
        raise TikmixError(
            f"The Fisher {reason} {list_names(uncovered or shared)}. {_remedy(model, groups, uncovered or shared)}"
        )


def _remedy(model: nn.Module, groups: Sequence[Group], names: Sequence[str]) -> str:
    """Say what to set where some parameters can have no block: those groups that hold none of them, or no Fisher."""
    owned, sizes = parameter_groups(model), {name: p.numel() for name, p in trainable_parameters(model).items()}
    lost = {owned[name] for name in names}
    kept = [group for group in _ORDER if group in groups and group in owned.values() and group not in lost]
    whole = "influence.curvature=identity, which takes all parameters (adam does too, for a checkpoint trained here)"
    if not kept:
        return f"Set {whole}."
    share = sum(size for name, size in sizes.items() if owned[name] not in kept) / sum(sizes.values())
    return f"Set influence.groups={'+'.join(kept)}, which leaves out {share:.0%} of the parameters, or {whole}."


def list_names(names: Sequence[str], shown: int = 5) -> str:
    """Join the first few names for an error message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
