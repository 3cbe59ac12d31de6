"""`Curvature`: f(C) over the chosen parameters, in blocks, as `influence` asks for; no backward pass is needed."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.adam import adam_blocks, step_divisors
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.factors import Factors, LayerFactors
from tikmix_pipeline.influence.curvature.identity import identity_blocks
from tikmix_pipeline.influence.curvature.kronecker import Decompositions, require_finite
from tikmix_pipeline.influence.curvature.layers import chosen_parameters
from tikmix_pipeline.influence.curvature.report import BlockReport, CurvatureReport
from tikmix_pipeline.influence.curvature.spectrum import FUNCTIONS, Damping, Filter
from tikmix_pipeline.influence.gradients import trainable_parameters
from tikmix_pipeline.lm.cost import NO_COST, Cost, counting
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.parameters.measurement import InfluenceParameters
from tikmix_pipeline.parameters.training import TrainParameters


@dataclasses.dataclass(frozen=True)
class Curvature:
    """f(C) of a block-diagonal, positive semi-definite C.

    Attributes:
        blocks: cover every trainable parameter of the chosen groups once; the rest take no part.
        report: how, and with what λ.
        cost: of the decompositions, without that of the factors.
    """

    blocks: tuple[EigenBlock, ...]
    report: CurvatureReport
    cost: Cost = NO_COST


def build_curvature(
    parameters: InfluenceParameters,
    model: nn.Module,
    *,
    factors: Factors | None,
    optimizer_state: Mapping[str, Tensor],
    train: TrainParameters,
    horizon: float | None,
) -> Curvature:
    """Build `influence.curvature` at a checkpoint, on the model's device.

    Args:
        parameters: name the curvature, f, λ and the groups.
        model: the checkpoint; only its parameters' names, shapes and device are read.
        factors: of the same checkpoint, for `diagonal`, `kfac` and `ekfac`; may cover more groups than are chosen.
        optimizer_state: `Checkpoint.optimizer_tensors()`, empty for a checkpoint without; read by `adam`, and by
            `damping_unit=horizon` for the step sizes of AdamW.
        train: β₂ and ε of that optimiser.
        horizon: sum of the learning rates over the coming chunk's steps; needed for `damping_unit=horizon`.

    Raises:
        TikmixError: `adam` without the optimiser's state, a unit without its horizon, factors that do not fit the
            parameters or the model, or moments that are not finite.
    """
    groups = parameters.groups
    if parameters.curvature == "identity":
        blocks = identity_blocks(model, groups)
        return Curvature(tuple(blocks), _report(parameters, model, blocks))
    damping = Damping(parameters.damping, parameters.damping_unit, horizon)
    with counting() as counter:
        if parameters.curvature == "adam":
            blocks = adam_blocks(model, groups, optimizer_state, beta2=train.beta2, epsilon=train.epsilon)
        else:
            blocks = _fisher_blocks(parameters, model, _fitting(parameters, factors))
    divisors: dict[str, Tensor] = {}
    # the eigenvalues of `adam` are the divisors themselves
    if parameters.damping_unit == "horizon" and parameters.curvature != "adam":
        divisors = {
            name: step_divisors(optimizer_state, name, parameter, beta2=train.beta2, epsilon=train.epsilon)
            for name, parameter in trainable_parameters(model).items()
            if f"{name}/exp_avg_sq" in optimizer_state
        }
    function = FUNCTIONS[parameters.inverse]
    filtered = [
        dataclasses.replace(
            block, filter=Filter(function, damping.scale(_mean_eigenvalue(block), _mean_divisor(block, divisors)))
        )
        for block in blocks
    ]
    return Curvature(tuple(filtered), _report(parameters, model, filtered), Cost(flops=counter.flops))


def _fitting(parameters: InfluenceParameters, factors: Factors | None) -> Factors:
    """Return factors that are what the parameters ask for."""
    asked = f"influence.curvature={parameters.curvature} with influence.fisher={parameters.fisher}"
    if factors is None:
        raise TikmixError(f"{asked} needs factors, and none were fitted. Fit them (fit_factors) first.")
    missing = sorted(set(parameters.groups) - set(factors.groups))
    if (factors.kind, factors.fisher) != (parameters.curvature, parameters.fisher) or missing:
        raise TikmixError(
            f"{asked} over {', '.join(parameters.groups)} cannot use factors of kind {factors.kind}, fisher "
            f"{factors.fisher} over {', '.join(factors.groups)}. Fit them again (fit_factors)."
        )
    return factors


def _fisher_blocks(parameters: InfluenceParameters, model: nn.Module, factors: Factors) -> list[EigenBlock]:
    layers = [layer for layer in factors.layers if layer.group in parameters.groups]
    covered = sorted(name for layer in layers for name in layer.layout.names)
    if covered != sorted(chosen_parameters(model, parameters.groups)):
        raise TikmixError("The factors of the curvature were fitted to another model than this. Fit them again.")
    decompositions = Decompositions(factors, device_of(model))
    return [_block(layer, factors, decompositions, device_of(model)) for layer in layers]


def _block(layer: LayerFactors, factors: Factors, decompositions: Decompositions, device: torch.device) -> EigenBlock:
    if "eigenvalues" not in layer.tensors:
        block = decompositions.of(layer)
        return EigenBlock(layer.layout, layer.kind, block.eigenvalues_oi(), block.rows_oo, block.columns_ii)
    found = {
        role: require_finite(factors.tensors[name].to(device), layer.layer) for role, name in layer.tensors.items()
    }
    return EigenBlock(layer.layout, layer.kind, found["eigenvalues"], found.get("rows"), found.get("columns"))


def _mean_divisor(block: EigenBlock, divisors: Mapping[str, Tensor]) -> float:
    """Return the mean over a block of what its optimiser divides steps by; one where that is not known."""
    known = [divisors[name].double().flatten() for name in block.names if name in divisors]
    return torch.cat(known).mean().item() if known else 1.0


def _mean_eigenvalue(block: EigenBlock) -> float:
    return block.eigenvalues_oi.double().mean().item()


def _report(parameters: InfluenceParameters, model: nn.Module, blocks: Sequence[EigenBlock]) -> CurvatureReport:
    total = sum(parameter.numel() for parameter in trainable_parameters(model).values())
    is_filtered = any(block.filter.function is not None for block in blocks)
    return CurvatureReport(
        curvature=parameters.curvature,
        inverse=parameters.inverse if is_filtered else "none",
        damping=parameters.damping if is_filtered else 0.0,
        damping_unit=parameters.damping_unit if is_filtered else "none",
        groups=tuple(parameters.groups),
        left_out=1 - sum(block.size for block in blocks) / total,
        blocks=tuple(
            BlockReport(block.names, block.kind, block.size, _mean_eigenvalue(block), block.filter.scale)
            for block in blocks
        ),
    )
