"""`Curvature`: f(C) over the chosen parameters, in blocks, as `influence` asks for; no backward pass is needed.

Blocks are decomposed one at a time, as they are asked for: the eigenvectors of all layers together take some three
times the memory of the model.

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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import overload

import torch
from torch import Tensor, nn

from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.eigenblock import FUNCTIONS, Damping, DampingFunction, EigenBlock
from tikmix_pipeline.influence.curvature.factors import Factors, LayerFactors
from tikmix_pipeline.influence.curvature.kronecker import Decompositions
from tikmix_pipeline.influence.curvature.layers import Layout, chosen_parameters, list_names, parameters_for
from tikmix_pipeline.influence.gradients import sum_dtype, trainable_parameters
from tikmix_pipeline.influence.records import BlockReport, CurvatureReport
from tikmix_pipeline.lm.cost import FlopCounter
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.parameters.measurement import CoverageParameters, CurvatureParameters, Group
from tikmix_pipeline.parameters.training import SecondMomentParameters

_KEPT_SCALARS = 1 << 24
"""Scalars of all blocks up to which they stay open, so that products can be made again and again."""


@dataclasses.dataclass(frozen=True)
class BlockOutline:
    """What is known of a block before it is opened."""

    names: tuple[str, ...]
    size: int
    """Scalar parameters."""
    is_divisible: bool
    """Whether the block can be cut along the first axis of its parameters (`EigenBlock.pieces`)."""


@dataclasses.dataclass(frozen=True)
class _Closed:
    """A block that is still to be decomposed."""

    outline: BlockOutline
    open: Callable[[], EigenBlock]

    @classmethod
    def of(cls, block: EigenBlock) -> "_Closed":
        """Wrap a block that costs nothing to hold."""
        return cls(BlockOutline(block.names, block.size, block.is_divisible), lambda: block)


class Curvature(Sequence[EigenBlock]):
    """f(C) of a block-diagonal, positive semi-definite C, a sequence of the blocks of this process.

    Over all processes of the group the blocks cover every trainable parameter of the chosen groups once; the rest take
    no part. A block is opened, which is to decompose it, when it is asked for, and let go afterwards, but for a
    curvature so small that it is kept.
    """

    def __init__(
        self,
        parameters: CurvatureParameters,
        model: nn.Module,
        closed: Sequence[_Closed],
        damping: Callable[[EigenBlock], DampingFunction],
        process_group: ProcessGroup,
    ) -> None:
        """Take the blocks, and what finds f for each; of the model only names and shapes are read."""
        self.process_group = process_group
        self._parameters = parameters
        self._trainable = {name: p.numel() for name, p in trainable_parameters(model).items()}
        self._closed = closed
        self._damping = damping
        self._is_kept = sum(one.outline.size for one in closed) <= _KEPT_SCALARS
        self._kept: dict[int, EigenBlock] = {}
        self._reports: dict[int, BlockReport] = {}
        self._flops = 0.0

    @property
    def outlines(self) -> list[BlockOutline]:
        """What is known of this process's blocks without opening any."""
        return [one.outline for one in self._closed]

    def __len__(self) -> int:
        return len(self._closed)

    @overload
    def __getitem__(self, index: int) -> EigenBlock: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EigenBlock]: ...
    def __getitem__(self, index: int | slice) -> EigenBlock | Sequence[EigenBlock]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if number in self._kept:
            return self._kept[number]
        with FlopCounter() as counter:
            block = self._closed[number].open()
        block = dataclasses.replace(block, damping_function=self._damping(block))
        if number not in self._reports:
            self._flops += counter.flops
            scale = block.damping_function.scale
            self._reports[number] = BlockReport(block.names, block.kind, block.size, block.mean_eigenvalue, scale)
        if self._is_kept:
            self._kept[number] = block
        return block

    @property
    def cost(self) -> Cost:
        """What the decompositions of all blocks take, without the fit of the factors; all are opened for it once."""
        self._require_reports()
        return Cost(flops=sum(self.process_group.all_gather_object(self._flops)))

    @property
    def report(self) -> CurvatureReport:
        """How each block is approximated, of all processes, and with what λ; blocks not yet seen are opened."""
        self._require_reports()
        parameters, is_damped = self._parameters, self._parameters.curvature != "identity"
        order = {name: number for number, name in enumerate(self._trainable)}
        mine = [self._reports[number] for number in range(len(self))]
        reports = [report for of_process in self.process_group.all_gather_object(mine) for report in of_process]
        if self.process_group.world_size > 1:
            reports.sort(key=lambda report: order[report.parameters[0]])
        return CurvatureReport(
            curvature=parameters.curvature,
            inverse=parameters.inverse if is_damped else "none",
            damping=parameters.damping if is_damped else 0.0,
            damping_unit=parameters.damping_unit if is_damped else "none",
            groups=tuple(parameters.groups),
            left_out=1 - sum(report.size for report in reports) / sum(self._trainable.values()),
            blocks=tuple(reports),
        )

    def _require_reports(self) -> None:
        for number in range(len(self)):
            if number not in self._reports:
                self[number]


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
        horizon: sum of the learning rates over the coming chunk; needed for `damping_unit=horizon`.
        device: where the work is done; the model's if not given.
        process_group: the processes that share the blocks out; each calls this, and decomposes its own.

    Raises:
        TikmixError: `adam` where a parameter has no second moment, as after training by Muon or without the state; a
            unit without its horizon; factors that do not fit the parameters or the model. Factors that are not finite
            raise one when their block is opened.
    """
    device = device or device_of(model)
    if parameters.curvature == "identity":
        chosen = parameters_for(process_group, chosen_parameters(model, parameters.groups))
        one = torch.ones((), device=device)  # expanded, it takes no memory
        blocks = [EigenBlock(Layout(name), "identity", one.expand(p.shape)) for name, p in chosen.items()]
        closed = [_Closed.of(block) for block in blocks]
        return Curvature(parameters, model, closed, lambda block: block.damping_function, process_group)
    damping = Damping(parameters.damping, parameters.damping_unit, horizon)
    if parameters.curvature == "adam":
        closed = _adam_blocks(model, parameters.groups, optimizer_state, train, device, process_group)
    else:
        closed = _fisher_blocks(parameters, model, _fitting(parameters, factors), device, process_group)

    def damping_of(block: EigenBlock) -> DampingFunction:
        divisor = _mean_step_divisor(block, parameters, optimizer_state, train)
        return DampingFunction(FUNCTIONS[parameters.inverse], damping.scale(block.mean_eigenvalue, divisor))

    return Curvature(parameters, model, closed, damping_of, process_group)


def _adam_blocks(
    model: nn.Module,
    groups: Sequence[Group],
    state: Mapping[str, Tensor],
    train: SecondMomentParameters,
    device: torch.device,
    process_group: ProcessGroup,
) -> list[_Closed]:
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

    def divisors(name: str, parameter: nn.Parameter) -> EigenBlock:
        return EigenBlock(Layout(name), "adam", _step_divisors(state, name, train, device, sum_dtype(parameter)))

    return [
        _Closed(BlockOutline((name,), parameter.numel(), is_divisible=True), partial(divisors, name, parameter))
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
) -> list[_Closed]:
    layers = [layer for layer in factors.layers if layer.group in parameters.groups]
    covered = sorted(name for layer in layers for name in layer.layout.names)
    chosen = chosen_parameters(model, parameters.groups)
    if covered != sorted(chosen):
        raise TikmixError("The factors of the curvature were fitted to another model than this. Fit them again.")
    mine = factors.names_for(process_group)
    own = [layer for layer in layers if layer.layer in mine]
    decompositions = Decompositions(factors, device, own)

    def opened(layer: LayerFactors) -> EigenBlock:
        if "eigenvalues" in layer.tensors:
            found = {role: decompositions.tensor(layer, role) for role in layer.tensors}
            values_oi, rows_oo, columns_ii = found["eigenvalues"], found.get("rows"), found.get("columns")
        else:
            block = decompositions.of(layer)
            values_oi, rows_oo, columns_ii = block.eigenvalues_oi(), block.rows_oo, block.columns_ii
        return EigenBlock(layer.layout, layer.kind, values_oi, rows_oo, columns_ii)

    def outline(layer: LayerFactors) -> BlockOutline:
        size = sum(chosen[name].numel() for name in layer.layout.names)
        return BlockOutline(layer.layout.names, size, layer.kind != "kronecker")

    return [_Closed(outline(layer), partial(opened, layer)) for layer in own]
