"""`Curvature`: f(C) over the chosen parameters, in blocks, as `influence` asks for; no backward pass is needed.

The identity, C = I, makes Group Influence the plain dot product of mean gradients: f(C) g = g. It has no damping and no
horizon, which would only rescale everything. Learning rate times `S[t, j]` is then the first-order fall of task t's
loss in one step of gradient descent on domain j.

Adam's preconditioner is C = diag(√v̂ + ε), with the bias-corrected second moment v̂ = v / (1 − β₂ˢ). v is the optimiser's
running mean of squared gradients (of the mean loss per token of a training batch, after clipping) at step s. √v̂ has the
unit of a gradient, not of a Fisher: `S[t, j]` is, per unit of learning rate, the first-order fall of task t's loss in
one Adam step along domain j's gradient with v̂ and without momentum. Its scale is therefore not that of `kfac`; only
comparisons between domains carry over. Each parameter tensor is a block. With f, `damped` is Adam with λ for its ε, and
`horizon` a smoother way from gradient descent with step 1/λ, where √v̂ ≪ λ, to Adam's step, where √v̂ ≫ λ. It is not the
solution of a flow, since √v̂ is no second derivative, and neither is λ a time: with `damping_unit=horizon` λ is an
inverse learning rate compared with a gradient. A relative λ needs no unit. All this costs nothing, the optimiser has
paid for it, and exists only where the checkpoint comes with its optimiser.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.eigenblock import FUNCTIONS, Damping, DampingFunction, EigenBlock
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.curvature.kronecker import Decompositions
from tikmix_pipeline.influence.curvature.layers import Layout, chosen_parameters, list_names, parameters_for
from tikmix_pipeline.influence.gradients import sum_dtype, trainable_parameters
from tikmix_pipeline.influence.records import BlockReport, CurvatureReport
from tikmix_pipeline.lm.cost import FlopCounter
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.parameters.measurement import CoverageParameters, CurvatureParameters, Group
from tikmix_pipeline.parameters.training import SecondMomentParameters


@dataclasses.dataclass(frozen=True)
class Curvature:
    """f(C) of a block-diagonal, positive semi-definite C.

    `blocks` are those of this process. Over all processes of the group they cover every trainable parameter of the
    chosen groups once; the rest take no part. `report` says of all of them how each is approximated, and with what λ.
    `cost` is what the decompositions of all blocks took, without the fit of the factors.
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
        optimizer_state: `Checkpoint.optimizer_tensors()`, empty for a checkpoint without; `exp_avg_sq` and `step` are
            read by `adam`, and by `damping_unit=horizon` for the step sizes of AdamW.
        train: β₂ and ε of that optimiser.
        horizon: sum of the learning rates over the coming chunk's steps; needed for `damping_unit=horizon`.
        device: where the work is done; the model's if not given.
        process_group: the processes that share the blocks out; each calls this, and decomposes its own.

    Raises:
        TikmixError: `adam` where a parameter has no second moment, as after training by Muon or without the state; a
            unit without its horizon; factors that do not fit the parameters or the model, or are not finite.
    """
    device = device or device_of(model)
    if parameters.curvature == "identity":
        chosen = parameters_for(process_group, chosen_parameters(model, parameters.groups))
        one = torch.ones((), device=device)  # expanded, it takes no memory
        blocks = [EigenBlock(Layout(name), "identity", one.expand(p.shape)) for name, p in chosen.items()]
        return Curvature(tuple(blocks), _report(parameters, model, blocks, process_group), process_group=process_group)
    damping = Damping(parameters.damping, parameters.damping_unit, horizon)
    with FlopCounter() as counter:
        if parameters.curvature == "adam":
            blocks = _adam_blocks(model, parameters.groups, optimizer_state, train, device, process_group)
        else:
            blocks = _fisher_blocks(parameters, model, _fitting(parameters, factors), device, process_group)
    for number, block in enumerate(blocks):
        divisor = _mean_step_divisor(block, parameters, optimizer_state, train)
        scale = damping.scale(block.mean_eigenvalue, divisor)
        function = DampingFunction(FUNCTIONS[parameters.inverse], scale)
        blocks[number] = dataclasses.replace(block, damping_function=function)
    flops = sum(process_group.all_gather_object(counter.flops))
    return Curvature(tuple(blocks), _report(parameters, model, blocks, process_group), Cost(flops=flops), process_group)


def _adam_blocks(
    model: nn.Module,
    groups: Sequence[Group],
    state: Mapping[str, Tensor],
    train: SecondMomentParameters,
    device: torch.device,
    process_group: ProcessGroup,
) -> list[EigenBlock]:
    if not state:
        raise TikmixError(
            "influence.curvature=adam needs the optimiser's state, and this checkpoint comes without one. "
            "Use influence.curvature=kfac."
        )
    parameters = chosen_parameters(model, groups)
    missing = [name for name in parameters if f"{name}/exp_avg_sq" not in state]
    if missing:
        raise TikmixError(
            f"influence.curvature=adam needs the AdamW state of every parameter, but there is none for "
            f"{list_names(missing)}. Use influence.curvature=kfac, or train with train.optimizer=adamw first."
        )
    return [
        EigenBlock(Layout(name), "adam", _step_divisors(state, name, train, device, sum_dtype(parameter)))
        for name, parameter in parameters_for(process_group, parameters).items()
    ]


def _step_divisors(
    state: Mapping[str, Tensor], name: str, train: SecondMomentParameters, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return √v̂ + ε of one parameter, what AdamW divides its steps by."""
    correction = 1 - train.beta2 ** float(state[f"{name}/step"])
    second = state[f"{name}/exp_avg_sq"].to(device, dtype)
    return torch.sqrt(second / correction) + train.epsilon


def _mean_step_divisor(
    block: EigenBlock, parameters: CurvatureParameters, state: Mapping[str, Tensor], train: SecondMomentParameters
) -> float:
    """Return the mean over a block of what AdamW divides its steps by, if λ asks for it and it is known; else one."""
    # the eigenvalues of `adam` are the divisors themselves
    if parameters.damping_unit != "horizon" or parameters.curvature == "adam":
        return 1.0
    like = block.eigenvalues_oi
    known = [
        _step_divisors(state, name, train, like.device, like.dtype).double().flatten()
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
    mine = factors.names_for(process_group)
    blocks: list[EigenBlock] = []
    for layer in (layer for layer in layers if layer.layer in mine):
        if "eigenvalues" in layer.tensors:
            found = {role: decompositions.tensor(layer, role) for role in layer.tensors}
            values_oi, rows_oo, columns_ii = found["eigenvalues"], found.get("rows"), found.get("columns")
        else:
            block = decompositions.of(layer)
            values_oi, rows_oo, columns_ii = block.eigenvalues_oi(), block.rows_oo, block.columns_ii
        blocks.append(EigenBlock(layer.layout, layer.kind, values_oi, rows_oo, columns_ii))
    return blocks


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
