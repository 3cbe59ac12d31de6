"""Group Influence (TiKMiX, Eqs. 2-8): what each domain would do for each task, at one checkpoint.

    S[t, j] = g_tᵀ (C + λI)⁻¹ g_j

g_t is the mean gradient of task t's loss and g_j that of domain j's, both per loss-carrying token; C is a curvature in
the same unit. The sign is that of a gain: positive means that more of domain j lowers the loss of task t. The paper's
Eq. 8 has the opposite sign and a sum over the group, which grows with the size of the sample.

Cost: one backward pass over every sequence of the K + T sets, T·M preconditionings and, per domain part, one
matrix-vector product per parameter. No per-example gradient and no pass per (domain, task) pair.
Memory: the T·M preconditioned task gradients are held, T·M times the trainable parameters (40 copies for 5 tasks in 8
parts), plus two working copies; the domains are streamed.

Axes: T tasks, K domains, M parts of a task, L = M parts of a domain, N = T·M.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.report import Curvature, CurvatureReport
from tikmix_pipeline.influence.gradients import Gradient, MeanGradient, mean_gradient, trainable_parameters
from tikmix_pipeline.influence.parts import deal_into_parts
from tikmix_pipeline.influence.standard_error import Floats, influence_with_error
from tikmix_pipeline.progress import progress_bar

_Parts = dict[str, list[list[TokenBatch]]]


@dataclass(frozen=True)
class GroupInfluence:
    """Group Influence of K domains on T tasks, with what it was computed from.

    Attributes:
        tasks: names along T.
        domains: names along K.
        influence_TK: positive where more of the domain lowers the task's loss.
        stderr_TK: standard error from the sampled sequences of both sides.
        products_TMKL: the same products part by part, for bootstraps over parts.
        task_tokens_TM: loss-carrying tokens of every part.
        domain_tokens_KL: loss-carrying tokens of every part.
        task_loss_T: mean loss at the checkpoint, nats per loss-carrying token.
        domain_loss_K: mean loss at the checkpoint, nats per loss-carrying token.
        curvature: what C was and how it was damped.
    """

    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    influence_TK: Floats
    stderr_TK: Floats
    products_TMKL: Floats
    task_tokens_TM: npt.NDArray[np.int64]
    domain_tokens_KL: npt.NDArray[np.int64]
    task_loss_T: Floats
    domain_loss_K: Floats
    curvature: CurvatureReport


def measure_group_influence(
    model: nn.Module,
    domains: Mapping[str, Sequence[TokenBatch]],
    tasks: Mapping[str, Sequence[TokenBatch]],
    curvature: Curvature,
    *,
    micro_batches: int,
) -> GroupInfluence:
    """Measure the influence of every domain on every task, and its standard error.

    Args:
        model: the checkpoint, with float32 (or float64) weights; left as it was.
        domains: windows of training text by domain.
        tasks: query items by task.
        curvature: C, fitted at the same checkpoint.
        micro_batches: parts that every set is split into for the standard error.

    Raises:
        TikmixError: a set has fewer sequences than parts, or a gradient is not finite.
    """
    task_parts = _deal("task", tasks, micro_batches)
    domain_parts = _deal("domain", domains, micro_batches)
    total = sum(batch.loss_tokens for part in _all_parts(task_parts, domain_parts) for batch in part)
    with progress_bar("Group Influence", total, "tok") as bar:
        task_rows, task_figures = _preconditioned_rows(model, task_parts, curvature, bar.update)
        columns, domain_figures = [], []
        for mean in _means(model, "domain", domain_parts, bar.update):
            columns.append(_products(task_rows, mean.gradient))
            domain_figures.append(_Figures.of(mean))
    products_TMKL = np.stack(columns, 1).reshape(len(tasks), micro_batches, len(domains), micro_batches)
    task_tokens_TM, task_loss_T = _by_set(task_figures, len(tasks))
    domain_tokens_KL, domain_loss_K = _by_set(domain_figures, len(domains))
    influence_TK, stderr_TK = influence_with_error(products_TMKL, task_tokens_TM, domain_tokens_KL)
    return GroupInfluence(
        tasks=tuple(tasks),
        domains=tuple(domains),
        influence_TK=influence_TK,
        stderr_TK=stderr_TK,
        products_TMKL=products_TMKL,
        task_tokens_TM=task_tokens_TM,
        domain_tokens_KL=domain_tokens_KL,
        task_loss_T=task_loss_T,
        domain_loss_K=domain_loss_K,
        curvature=curvature.report,
    )


@dataclass(frozen=True)
class _Figures:
    """What is kept of a part once its gradient is gone."""

    loss: float
    loss_tokens: int

    @classmethod
    def of(cls, mean: MeanGradient) -> "_Figures":
        return cls(mean.loss, mean.loss_tokens)


def _deal(side: str, sets: Mapping[str, Sequence[TokenBatch]], micro_batches: int) -> _Parts:
    if not sets:
        raise TikmixError(f"There is no {side} to measure influence with. Name at least one.")
    if micro_batches < 2:
        raise TikmixError("influence.micro_batches must be at least 2: one part has no spread to take an error from.")
    parts = {name: deal_into_parts(batches, micro_batches) for name, batches in sets.items()}
    for name, dealt in parts.items():
        if not all(dealt):
            sequences = sum(len(batch) for part in dealt for batch in part)
            raise TikmixError(
                f"{side} '{name}' has {sequences} sequences with loss, fewer than influence.micro_batches = "
                f"{micro_batches}. Give it more data, or lower influence.micro_batches."
            )
    return parts


def _all_parts(*sides: _Parts) -> Iterator[list[TokenBatch]]:
    return (part for side in sides for parts in side.values() for part in parts)


def _means(model: nn.Module, side: str, sets: _Parts, advance: Callable[[int], object]) -> Iterator[MeanGradient]:
    for name, parts in sets.items():
        for part in parts:
            yield mean_gradient(model, part, of=f"{side} '{name}'", advance=advance)


def _preconditioned_rows(
    model: nn.Module, tasks: _Parts, curvature: Curvature, advance: Callable[[int], object]
) -> tuple[dict[str, Tensor], list[_Figures]]:
    """Stack `(C + λI)⁻¹ g` of every task part, one (N, size) matrix per parameter."""
    count = sum(len(parts) for parts in tasks.values())
    rows = {name: p.new_empty(count, p.numel()) for name, p in trainable_parameters(model).items()}
    figures = []
    for row, mean in enumerate(_means(model, "task", tasks, advance)):
        for name, values in curvature.precondition(mean.gradient).items():
            rows[name][row] = values.flatten()
        figures.append(_Figures.of(mean))
    return rows, figures


def _products(rows: Mapping[str, Tensor], gradient: Gradient) -> Floats:
    """Dot one gradient with every row; parameters are summed in float64."""
    products_PN = torch.stack([rows[name] @ values.flatten() for name, values in gradient.items()])
    summed: Floats = products_PN.double().sum(0).cpu().numpy()
    return summed


def _by_set(figures: Sequence[_Figures], sets: int) -> tuple[npt.NDArray[np.int64], Floats]:
    tokens = np.array([part.loss_tokens for part in figures], dtype=np.int64).reshape(sets, -1)
    loss = np.array([part.loss for part in figures], dtype=np.float64).reshape(sets, -1)
    return tokens, (loss * tokens).sum(axis=1) / tokens.sum(axis=1)
