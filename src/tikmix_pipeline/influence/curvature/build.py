"""`Curvature`: f(C) over the chosen parameters, in blocks, as `influence` asks for; no backward pass is needed.

The identity, C = I, makes Group Influence the plain dot product of mean gradients: f(C) g = g. It has no damping and no
horizon, which would only rescale everything. Learning rate times `S[t, j]` is then the first-order fall of task t's
loss in one step of gradient descent on domain j.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.adam import adam_blocks, step_divisors
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.factors import Factors, LayerFactors
from tikmix_pipeline.influence.curvature.kronecker import Decompositions, require_finite
from tikmix_pipeline.influence.curvature.layers import Layout, chosen_parameters, parameters_for
from tikmix_pipeline.influence.curvature.spectrum import FUNCTIONS, Damping, DampingFunction
from tikmix_pipeline.influence.gradients import trainable_parameters
from tikmix_pipeline.influence.records import BlockReport, CurvatureReport
from tikmix_pipeline.lm.cost import counting
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.parameters.measurement import CoverageParameters, CurvatureParameters
from tikmix_pipeline.parameters.training import SecondMomentParameters


@dataclasses.dataclass(frozen=True)
class Curvature:
    """f(C) of a block-diagonal, positive semi-definite C.

    Attributes:
        blocks: cover every trainable parameter of the chosen groups once, over all processes; the rest take no part.
        report: how each block, of all processes, is approximated, and with what λ.
        cost: what the decompositions of all blocks took, without the fit of the factors.
        process_group: the processes that the blocks are spread over.
    """

    blocks: tuple[EigenBlock, ...]
    report: CurvatureReport
    cost: Cost = NO_COST
    process_group: ProcessGroup = SINGLE_PROCESS


def build_curvature(
    parameters: CurvatureParameters,
    model: nn.Module,
    *,
    factors: Factors | None,
    optimizer_state: Mapping[str, Tensor],
    train: SecondMomentParameters,
    horizon: float | None,
    device: torch.device | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Curvature:
    """Build `influence.curvature` at a checkpoint.

    Args:
        parameters: name the curvature, f, λ and the groups.
        model: the checkpoint; only its parameters' names and shapes are read.
        factors: fitted at the same checkpoint, for `diagonal`, `kfac` and `ekfac`; more groups than are chosen will do.
        optimizer_state: `Checkpoint.optimizer_tensors()`, empty for a checkpoint without; read by `adam`, and by
            `damping_unit=horizon` for the step sizes of AdamW.
        train: β₂ and ε of that optimiser.
        horizon: sum of the learning rates over the coming chunk's steps; needed for `damping_unit=horizon`.
        device: where the work is done; the model's if not given.
        process_group: the processes that share the blocks out; each calls this, and decomposes its own.

    Raises:
        TikmixError: `adam` without the optimiser's state, a unit without its horizon, factors that do not fit the
            parameters or the model, or are not finite.
    """
    device = device or device_of(model)
    if parameters.curvature == "identity":
        chosen = parameters_for(process_group, chosen_parameters(model, parameters.groups))
        one = torch.ones((), device=device)  # expanded, it takes no memory
        blocks = [EigenBlock(Layout(name), "identity", one.expand(p.shape)) for name, p in chosen.items()]
        return Curvature(tuple(blocks), _report(parameters, model, blocks, process_group), process_group=process_group)
    damping = Damping(parameters.damping, parameters.damping_unit, horizon)
    with counting() as counter:
        if parameters.curvature == "adam":
            blocks = adam_blocks(model, parameters.groups, optimizer_state, train, device, process_group)
        else:
            blocks = _fisher_blocks(parameters, model, _fitting(parameters, factors), device, process_group)
    damped: list[EigenBlock] = []
    for block in blocks:
        divisor = _mean_step_divisor(block, parameters, optimizer_state, train)
        scale = damping.scale(block.mean_eigenvalue, divisor)
        function = DampingFunction(FUNCTIONS[parameters.inverse], scale)
        damped.append(dataclasses.replace(block, damping_function=function))
    flops = sum(process_group.all_gather_object(counter.flops))
    return Curvature(tuple(damped), _report(parameters, model, damped, process_group), Cost(flops=flops), process_group)


def _mean_step_divisor(
    block: EigenBlock, parameters: CurvatureParameters, state: Mapping[str, Tensor], train: SecondMomentParameters
) -> float:
    """Return the mean over a block of what AdamW divides its steps by, if λ asks for it and it is known; else one."""
    # the eigenvalues of `adam` are the divisors themselves
    if parameters.damping_unit != "horizon" or parameters.curvature == "adam":
        return 1.0
    like = block.eigenvalues_oi
    known = [
        step_divisors(state, name, train, like.device, like.dtype).double().flatten()
        for name in block.names
        if f"{name}/exp_avg_sq" in state
    ]
    return torch.cat(known).mean().item() if known else 1.0


def _fitting(parameters: CoverageParameters, factors: Factors | None) -> Factors:
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


def _fisher_blocks(
    parameters: CoverageParameters,
    model: nn.Module,
    factors: Factors,
    device: torch.device,
    process_group: ProcessGroup,
) -> list[EigenBlock]:
    layers = [layer for layer in factors.layers if layer.group in parameters.groups]
    covered = sorted(name for layer in layers for name in layer.layout.names)
    if covered != sorted(chosen_parameters(model, parameters.groups)):
        raise TikmixError("The factors of the curvature were fitted to another model than this. Fit them again.")
    decompositions = Decompositions(factors, device)
    mine = set(factors.names_for(process_group))
    return [_block(layer, factors, decompositions, device) for layer in layers if layer.layer in mine]


def _block(layer: LayerFactors, factors: Factors, decompositions: Decompositions, device: torch.device) -> EigenBlock:
    if "eigenvalues" not in layer.tensors:
        block = decompositions.of(layer)
        return EigenBlock(layer.layout, layer.kind, block.eigenvalues_oi(), block.rows_oo, block.columns_ii)
    found = {
        role: require_finite(factors.tensors[name].to(device), layer.layer) for role, name in layer.tensors.items()
    }
    return EigenBlock(layer.layout, layer.kind, found["eigenvalues"], found.get("rows"), found.get("columns"))


def _report(
    parameters: CurvatureParameters, model: nn.Module, blocks: Sequence[EigenBlock], process_group: ProcessGroup
) -> CurvatureReport:
    trainable = trainable_parameters(model)
    total = sum(parameter.numel() for parameter in trainable.values())
    is_damped = parameters.curvature != "identity"
    mine = [
        BlockReport(block.names, block.kind, block.size, block.mean_eigenvalue, block.damping_function.scale)
        for block in blocks
    ]
    order = {name: number for number, name in enumerate(trainable)}
    reports = [report for of_process in process_group.all_gather_object(mine) for report in of_process]
    if process_group.world_size > 1:
        reports.sort(key=lambda report: order[report.parameters[0]])
    return CurvatureReport(
        curvature=parameters.curvature,
        inverse=parameters.inverse if is_damped else "none",
        damping=parameters.damping if is_damped else 0.0,
        damping_unit=parameters.damping_unit if is_damped else "none",
        groups=tuple(parameters.groups),
        left_out=1 - sum(report.size for report in reports) / total,
        blocks=tuple(reports),
    )
