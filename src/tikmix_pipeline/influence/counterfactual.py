"""Counterfactuals: what would have happened had a domain had a larger share, from real branches of training.

Branch j is trained under w'_j = (1 − step) w + step e_j, w being the mixture of the baseline; its gain over the
baseline (`agreement.measured_gains`) is what predicted effects are held against. To first order these are

    P[t, j] = Σ_k (w'_j − w)_k S[t, k] = step · (S[t, j] − Σ_k w_k S[t, k]),

from each candidate's S. All candidates share one set of gradient chunks: none costs another backward pass.

Axes: T tasks, K domains.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch, batches_of
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import HALVES, Half, TaskItems
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.agreement import BASELINE, raised
from tikmix_pipeline.influence.curvature.build import build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.group import MOVED_SHARE, GroupInfluence, group_influence
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.influence.target_samples import target_samples, task_batches
from tikmix_pipeline.lm.branch_pool import BranchResult
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.parameters.measurement import OpenParameters, ScoringParameters
from tikmix_pipeline.parameters.training import ProductParameters
from tikmix_pipeline.parameters.validation import Candidate
from tikmix_pipeline.progress import progress_bar

_BATCH_SIZE = 32


def counterfactual_mixtures(weights: Mapping[str, float], step: float) -> dict[str, dict[str, float]]:
    """Return the mixture of every branch by its name, the baseline first."""
    mixtures = {BASELINE: dict(weights)}
    for domain in weights:
        mixtures[raised(domain)] = {
            name: (1 - step) * weight + (step if name == domain else 0.0) for name, weight in weights.items()
        }
    return mixtures


def scored_texts(
    shards: TokenShards,
    influence: ScoringParameters,
    *,
    items: int | None,
    context: int,
    halves: Sequence[Half] = HALVES,
) -> dict[str, Sequence[TokenBatch]]:
    """Return what branches are scored on, as `<half>/<target>`, in halves of all targets of influence.

    The two halves of a held-out slice are the windows that influence is measured on, and those after them. At most so
    many `items`, or windows, of a half are taken; all with `None`.

    Raises:
        TikmixError: a task without options is to be scored by its choices; or the evaluation half is asked for, and a
            held-out slice has no windows but the measured ones.
    """
    texts: dict[str, Sequence[TokenBatch]] = {}
    if influence.targets in ("tasks", "all"):
        tasks = TaskItems.open(shards.tasks_file)
        for task in influence.deciding(tasks.tasks):
            for half in halves:
                texts[f"{half}/{task}"] = task_batches(
                    tasks, task, half, influence, limit=items, context=context, batch_size=_BATCH_SIZE
                )
    if influence.targets in ("heldout", "all"):
        texts |= _heldout_texts(shards, influence, items, context, halves)
    return texts


def _heldout_texts(
    shards: TokenShards, influence: ScoringParameters, items: int | None, context: int, halves: Sequence[Half]
) -> dict[str, list[TokenBatch]]:
    texts: dict[str, list[TokenBatch]] = {}
    heldout = influence.model_copy(update={"targets": "heldout"})
    measured = target_samples(shards, heldout, context=context)
    for domain, (name, batches) in zip(shards.domains, measured.items(), strict=True):
        windows = shards.windows(domain, context, "heldout")
        known = sum(len(batch) for batch in batches)
        chosen = {"query": np.arange(known)[:items], "evaluation": np.arange(known, len(windows))[:items]}
        if "evaluation" in halves and not len(chosen["evaluation"]):
            raise TikmixError(
                f"Influence is measured on the whole held-out slice of '{domain}', so nothing is left to judge its "
                "predictions by. Lower influence.tokens, or raise corpus.heldout_max_kilobytes."
            )
        for half in halves:
            texts[f"{half}/{name}"] = batches_of(windows.take(chosen[half]), _BATCH_SIZE)
    return texts


def loss_rows(results: Sequence[BranchResult]) -> Iterator[dict[str, object]]:
    """Yield a row per branch, half and target: loss in nats per loss-carrying token, and what it was taken over.

    Of multiple choice it is per item, and `tokens` are items.
    """
    for result in results:
        for text, loss in result.losses.items():
            half, _, task = text.partition("/")
            yield {
                "replicate": result.branch.replicate,
                "branch": result.branch.name,
                "task": task,
                "half": half,
                "loss": loss.nats / loss.tokens,
                "nats": loss.nats,
                "tokens": loss.tokens,
            }


def candidate_influences(
    candidates: Sequence[Candidate],
    gradients: GradientStore,
    model: nn.Module,
    *,
    influence: OpenParameters,
    factors: Sequence[Factors],
    optimizer_state: Mapping[str, Tensor],
    train: ProductParameters,
    horizon: float,
    mixture: Mapping[str, float],
) -> Iterator[tuple[Candidate, GroupInfluence]]:
    """Yield the influence that each candidate, a way to predict, finds.

    Args:
        model: the checkpoint, on the device to work on.
        influence: what the candidates leave open.
        factors: one fit per kind that the candidates need, over all their groups.
        optimizer_state: `Checkpoint.optimizer_tensors()`, read for `adam`.
        horizon: sum of the learning rates over a branch.
        mixture: the baseline's, which effects are stated against.

    Raises:
        TikmixError: a candidate does not fit the checkpoint, or one gradient does not fit into the memory given.
    """
    by_kind: dict[str, Factors] = {fitted.kind: fitted for fitted in factors}
    with progress_bar("Candidates", len(candidates), "candidate") as bar:
        for candidate in candidates:
            applied = candidate.applied_to(influence)
            curvature = build_curvature(
                applied,
                model,
                factors=by_kind[candidate.curvature] if applied.needs_factors else None,
                optimizer_state=optimizer_state,
                train=train,
                horizon=horizon,
            )
            memory = influence.memory_megabytes
            found = group_influence(
                gradients, curvature, reference=mixture, memory_megabytes=memory, device=device_of(model)
            )
            yield candidate, found
            bar.update(1)


def prediction_rows(candidate: Candidate, found: GroupInfluence, step: float) -> Iterator[dict[str, object]]:
    """Yield a row per task and domain: the influence, and the effect that it predicts for a branch with its error."""
    scale = step / MOVED_SHARE
    for row, task in enumerate(found.tasks):
        for column, domain in enumerate(found.domains):
            yield {
                "candidate": candidate.label,
                "task": task,
                "domain": domain,
                "influence": float(found.influence_TK[row, column]),
                "predicted": scale * float(found.effect_TK[row, column]),
                "predicted_stderr": scale * float(found.effect_stderr_TK[row, column]),
            }
