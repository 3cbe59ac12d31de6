"""The layers of a model that K-FAC has a block for, and the refusal to leave any trainable parameter out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import nn

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.report import list_names
from tikmix_pipeline.influence.gradients import trainable_parameters

Kind = Literal["linear", "embedding", "head", "elementwise"]


@runtime_checkable
class _NamesItsHead(Protocol):
    def get_output_embeddings(self) -> nn.Module | None: ...


@dataclass(frozen=True)
class Layer:
    """One module with trainable parameters of its own.

    Attributes:
        name: the module's name.
        module: the module.
        kind: which second moments it needs.
        parameters: the model's name of each parameter by its name in the module, such as `weight`.
        tied: an embedding and a head share their weight; set on both.
    """

    name: str
    module: nn.Module
    kind: Kind
    parameters: dict[str, str]
    tied: bool = False


def find_layers(model: nn.Module) -> list[Layer]:
    """Assign every trainable parameter to one layer, or to an embedding and the output head that share it.

    Raises:
        TikmixError: a trainable parameter belongs to no known kind of layer, or is shared in any other way.
    """
    names = {id(parameter): name for name, parameter in trainable_parameters(model).items()}
    head = model.get_output_embeddings() if isinstance(model, _NamesItsHead) else None
    embeddings = {
        id(m.weight) for m in model.modules() if _kind(m, head) == "embedding" and isinstance(m, nn.Embedding)
    }
    tied_weight = id(head.weight) if isinstance(head, nn.Linear) and id(head.weight) in embeddings else None
    layers = []
    for name, module in model.named_modules():
        kind = _kind(module, head)
        own = {key: names[id(p)] for key, p in module.named_parameters(recurse=False) if id(p) in names}
        if kind is None or not own or (kind != "elementwise" and "weight" not in own):
            continue
        tied = kind in ("embedding", "head") and id(module.weight) == tied_weight
        layers.append(Layer(name, module, kind, {"weight": own["weight"]} if tied else own, tied))
    _require_coverage(list(names.values()), layers)
    return layers


def _kind(module: nn.Module, head: nn.Module | None) -> Kind | None:
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


def _require_coverage(names: list[str], layers: list[Layer]) -> None:
    owners = dict(_owners(names, layers))
    uncovered = [name for name, of in owners.items() if not of]
    shared = [
        name for name, of in owners.items() if len(of) > 1 and sorted(la.kind for la in of) != ["embedding", "head"]
    ]
    if uncovered or shared:
        reason = "does not know the kind of layer of" if uncovered else "cannot handle layers that share"
        raise TikmixError(
            f"influence.curvature=kfac {reason} {list_names(uncovered or shared)}. Freeze them (requires_grad=False), "
            "or use influence.curvature=adam or identity."
        )


def _owners(names: list[str], layers: list[Layer]) -> Iterator[tuple[str, list[Layer]]]:
    for name in names:
        yield name, [layer for layer in layers if name in layer.parameters.values()]
