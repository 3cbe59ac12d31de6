"""Group Influence (TiKMiX, Eqs. 2-8): what each domain would do for each task, at one checkpoint.

    S[t, j] = g_tᵀ f(C) g_j

g_t is the mean gradient of task t's loss and g_j that of domain j's, both per loss-carrying token; C is a curvature in
the same unit and f its damped inverse. The sign is that of a gain: positive means that more of domain j lowers the loss
of task t. The paper's Eq. 8 has the opposite sign and a sum over the group, which grows with the size of the sample.

**Effects** are influence for a move that can be made, in nats of a task's loss where the calibration is measured:

    effect[t, j] = calibration · 0.01 · (S[t, j] − Σ_k w_k S[t, k])

is how much lower the loss of task t ends, per loss-carrying token, when 1 % of the coming chunk's tokens goes to domain
j and is taken from all domains in proportion to the reference mixture w: that mixture becomes 0.99 w + 0.01 e_j.

Why nats: let θ follow gradient flow, dθ/ds = −Σ_j w_j ∇L_j(θ), for a time τ equal to the sum of the chunk's learning
rates, with losses that are quadratic with curvature C around the checkpoint. A change Δw of the mixture then moves
the end point by −f(C) Σ_j Δw_j g_j with f(μ) = (1 − exp(−μτ))/μ, and the loss of task t by −Σ_j Δw_j S[t, j]. So with
`influence.inverse=horizon` and `influence.damping_unit=horizon` (λ = 1/τ at `damping` 1) S itself is in nats per unit
of mixture. That holds for gradient descent; AdamW moves further along flat directions, and any other inverse or damping
has another scale, as has any other model. What `validate` measures on real branches of training from that very
checkpoint then sets the scale: `influence.calibration`. Without it effects are in the units of S, and what people see
are shares of the best possible (`influence.report`).

An effect's standard error is that of the same combination of chunk products (`standard_error.Spread.combined`): the
task's sample is shared by all domains, whose own samples are independent. It leaves out the error of the calibration.

The gradients lie in a store (`collect`); from there everything is products (`products`). No per-example gradient and no
pass per (domain, task) pair.

Axes: T tasks, K domains, M chunks of a task, L chunks of a domain.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.collect import collect_gradients
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.gradients import deal_sets
from tikmix_pipeline.influence.products import chunk_products
from tikmix_pipeline.influence.records import CurvatureReport
from tikmix_pipeline.influence.standard_error import Counts, Floats, Spread, influence_with_error
from tikmix_pipeline.influence.store import GradientStore, MeasuredSets, Side
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.lm.loss import device_of

MOVED_SHARE = 0.01
"""Share of the coming chunk's tokens that an effect is stated for."""

_MEMORY_MEGABYTES = 1_000.0


@dataclass(frozen=True)
class GroupInfluence:
    """Group Influence of K domains on T tasks, with what it was computed from.

    Tokens are those that carry loss, losses in nats per such token, standard errors from the sampled sequences of both
    sides. Effects are in nats per token if the calibration that they were computed with was measured. Of a task that is
    scored by its choices, "token" is "item".
    """

    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    influence_TK: Floats
    """Positive where more of the domain lowers the task's loss."""
    stderr_TK: Floats
    effect_TK: Floats
    """Fall of the task's loss when 1 % of the coming chunk's tokens moves to the domain from all domains in proportion
    to the reference mixture."""
    effect_stderr_TK: Floats
    products_TMKL: Floats
    """The products chunk by chunk, for bootstraps over chunks."""
    task_tokens_TM: Counts
    domain_tokens_KL: Counts
    task_loss_T: Floats
    """Mean loss at the checkpoint."""
    domain_loss_K: Floats
    curvature: CurvatureReport
    cost: Cost = NO_COST
    """Of the products, without that of the curvature and of the gradients."""


def group_influence(
    store: GradientStore,
    curvature: Curvature,
    *,
    reference: Mapping[str, float] | None = None,
    calibration: float = 1.0,
    memory_megabytes: float = _MEMORY_MEGABYTES,
    device: str | torch.device = "cpu",
) -> GroupInfluence:
    """Compute the influence of every domain of a store on every task, its error, and its effect.

    Args:
        curvature: C at the same checkpoint, on `device`; the processes that share its blocks each call this.
        reference: the mixture that effects are stated against, by domain; all domains alike if not given.
        calibration: measured over predicted effect; 1 leaves effects in the units of S.
        memory_megabytes: bound on the working memory of the products.

    Raises:
        TikmixError: the store is not complete, the reference misses a domain, or the memory holds no single row.
    """
    products_TMKL, cost = chunk_products(
        store, curvature, memory_megabytes=memory_megabytes, device=torch.device(device)
    )
    found = influence_of(store, products_TMKL, curvature.report, reference=reference, calibration=calibration)
    return dataclasses.replace(found, cost=cost)


def influence_of(
    store: MeasuredSets,
    products_TMKL: Floats,
    curvature: CurvatureReport,
    *,
    reference: Mapping[str, float] | None = None,
    calibration: float = 1.0,
) -> GroupInfluence:
    """Return what products of all chunks of a store (`products.chunk_products`) amount to, as `group_influence` does.

    Raises:
        TikmixError: the store is not complete, or the reference misses a domain.
    """
    tasks, domains = store.sets("task"), store.sets("domain")
    reference_K = _reference(reference, domains)
    task_tokens_TM, task_loss_T = _figures(store, "task", tasks)
    domain_tokens_KL, domain_loss_K = _figures(store, "domain", domains)
    table = products_TMKL, task_tokens_TM, domain_tokens_KL
    influence_TK, stderr_TK = influence_with_error(*table)
    effect_TK, effect_stderr_TK = effect_with_error(*table, reference_K, calibration=calibration)
    return GroupInfluence(
        tasks,
        domains,
        influence_TK,
        stderr_TK,
        effect_TK,
        effect_stderr_TK,
        *table,
        task_loss_T,
        domain_loss_K,
        curvature,
    )


def effect_with_error(
    products_TMKL: Floats,
    task_tokens_TM: Counts,
    domain_tokens_KL: Counts,
    reference_K: Floats,
    *,
    calibration: float = 1.0,
) -> tuple[Floats, Floats]:
    """Return what moving 1 % of the tokens to each domain does for each task, (T, K), and the standard error.

    Effects are positive where the task's loss falls, in nats per loss-carrying token of it if `calibration`, measured
    over predicted effect, was measured. Those of a task, weighted by the reference mixture, which sums to one, sum to
    zero.
    """
    factors_KK = calibration * MOVED_SHARE * (np.eye(len(reference_K)) - reference_K)
    return Spread.of(products_TMKL, task_tokens_TM, domain_tokens_KL).combined(factors_KK)


def measure_group_influence(
    model: nn.Module,
    domains: Mapping[str, Sequence[TokenBatch]],
    tasks: Mapping[str, Sequence[TokenBatch]],
    curvature: Curvature,
    *,
    micro_batches: int,
    reference: Mapping[str, float] | None = None,
    memory_megabytes: float = _MEMORY_MEGABYTES,
) -> GroupInfluence:
    """Measure the influence of every domain on every task in one call, keeping no gradients.

    The gradient chunks, `micro_batches` of every set, lie in a temporary folder meanwhile; the model, which is left as
    it was, is on the device to work on, and the curvature fitted at the same checkpoint. For the rest see
    `group_influence`.

    Raises:
        TikmixError: a set has fewer sequences than chunks, or a gradient is not finite.
    """
    chunks: dict[Side, dict[str, list[list[TokenBatch]]]] = {
        "task": deal_sets("task", tasks, micro_batches),
        "domain": deal_sets("domain", domains, micro_batches),
    }
    with tempfile.TemporaryDirectory() as folder:
        store = GradientStore(Path(folder))
        collect_gradients(model, chunks, store, key="")
        return group_influence(
            store, curvature, reference=reference, memory_megabytes=memory_megabytes, device=device_of(model)
        )


def _reference(reference: Mapping[str, float] | None, domains: Sequence[str]) -> Floats:
    if reference is None:
        return np.full(len(domains), 1 / len(domains))
    missing = [domain for domain in domains if domain not in reference]
    if missing:
        raise TikmixError(f"The reference mixture has no weight for {', '.join(missing)}. Give every domain one.")
    weights_K = np.array([reference[domain] for domain in domains])
    # of a subset of the domains, the mixture within the subset
    normalised: Floats = weights_K / weights_K.sum()
    return normalised


def _figures(store: MeasuredSets, side: Side, names: Sequence[str]) -> tuple[Counts, Floats]:
    figures = [store.figures(side, name) for name in names]
    tokens = np.array([[chunk.loss_tokens for chunk in chunks] for chunks in figures], dtype=np.int64)
    loss = np.array([[chunk.loss for chunk in chunks] for chunks in figures])
    return tokens, (loss * tokens).sum(axis=1) / tokens.sum(axis=1)
