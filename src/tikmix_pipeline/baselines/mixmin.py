"""MixMin (Thudi et al. 2025, arXiv 2502.10510): the likeliest mixture of models that know one domain each.

    branches   one per domain, trained on it alone
    mixture    maximises  Σ_i ω_i · log Σ_k w_k p_k(x_i),   p_k(x) being what branch k gives to a target's text

The paper's argument: for cross-entropy, the best model of a mixture of sources is the mixture of the best models of
each, so that mixtures need no training of their own, and what is left is convex. Its code takes an item of a target
for x, its log-probability divided by its length: `unit: item`. `unit: token` mixes what branches say of the next
token instead, in the manner of mixtures of data experts (Belenki et al. 2025, arXiv 2502.15950). Items, or tokens, of
a target weigh the same, and so do targets. Of multiple choice (`lm.choice`) p_k is the probability of the right option.

What differs from the paper: models begin at the checkpoint and not from scratch, so that they are asked what to read
next; the target is the query half of each task; and the convex problem is solved to a proven distance
(`likeliest_mixture`), not by a hundred steps of exponentiated gradient. As there, nothing is said of text that is
read again: a small domain counts for what its few tokens bring a branch, and the bounds are for the rest.

Axes: K domains, N items or tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.baselines.baseline import Baseline, within_bounds
from tikmix_pipeline.baselines.likeliest_mixture import LikeliestMixture, likeliest_mixture
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.lm.branch_pool import Branch, BranchResult, BranchSetting, Texts, cost_of_branches, run_branches
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters import EngineParameters
from tikmix_pipeline.parameters.baselines import MixminParameters
from tikmix_pipeline.parameters.training import LoadParameters, StepParameters

_LEAST = 1e-300
"""A branch gives an item at least so much of the probability that the best branch gives it."""
_FAINT = 0.01
"""A gain over the uniform mixture below this, in nats per token, is told."""


def mixmin(
    checkpoint: Checkpoint,
    shards: TokenShards,
    texts: Texts,
    *,
    model: LoadParameters,
    train: StepParameters,
    schedule: Schedule,
    parameters: MixminParameters,
    seed: int,
    folder: Path,
    key: str,
    bounds: Bounds | None = None,
    engine: EngineParameters = EngineParameters(),  # noqa: B008 (immutable)
) -> Baseline:
    """Return MixMin's mixture for what a checkpoint reads next, moved inside the bounds.

    Args:
        checkpoint: what the branches go on from.
        texts: what they are scored on, by target (`influence.counterfactual.scored_texts`).
        schedule: learning rates of a branch, by global step.
        seed: the run's.
        folder: where the branches' losses are kept; a stopped call goes on with those that are missing.
        key: names the code that runs, as in `run_branches`.

    Raises:
        TikmixError: branches cannot be trained at all, or all of them have failed.
    """
    setting = BranchSetting(
        checkpoint=checkpoint.folder,
        shards=shards.folder,
        steps=parameters.steps(train),
        model=model,
        train=train,
        schedule=schedule,
        seed=seed,
        by_token=True,
    )
    branches = [Branch(name, {domain: float(domain == name) for domain in shards.domains}) for name in shards.domains]
    results = run_branches(
        setting, branches, texts, folder=folder / "branches", key=key, workers=parameters.workers, engine=engine
    )
    whole = [result for result in results if result.failure is None]
    found = _decide(_predictions(texts, whole, parameters.unit), parameters)
    share = dict(zip([result.branch.name for result in whole], found.weights_K.tolist(), strict=True))
    weights, moved = within_bounds(bounds, {domain: share.get(domain, 0.0) for domain in shards.domains})
    cost = cost_of_branches(setting, results, texts)
    return Baseline(
        weights,
        cost.training + cost.scoring,
        (*_missing(results), *found.notes(parameters), *moved),
        {
            "loss": found.loss,
            "loss_of_uniform": found.loss_of_uniform,
            "loss_of_branches": dict(zip(share, found.loss_K.tolist(), strict=True)),
            "iterations": len(found.fit.likelihoods) - 1,
            "trained": cost.trained,
        },
    )


def _missing(results: Sequence[BranchResult]) -> tuple[str, ...]:
    return tuple(
        f"The branch of '{result.branch.name}' did not come through, so MixMin gives that domain nothing."
        for result in results
        if result.failure is not None
    )


@dataclass(frozen=True, eq=False)
class _Predictions:
    """What K branches say of N items or tokens."""

    log_KN: FloatArray
    """Log-probabilities in nats."""
    weight_N: FloatArray
    """What an observation counts; so weighed, they add up to nats per token."""


def _predictions(texts: Texts, results: Sequence[BranchResult], unit: Literal["item", "token"]) -> _Predictions:
    """Return what the branches say of all targets, in the order of the texts."""
    logs, weights = [], []
    for name, batches in texts.items():
        log_KN = -np.array([result.losses[name].by_token for result in results])
        length_N = _lengths(batches)
        if unit == "item":
            starts = np.cumsum(length_N) - length_N
            logs.append(np.add.reduceat(log_KN, starts, axis=1))
            weights.append(1 / (len(texts) * len(length_N) * length_N))
        else:
            logs.append(log_KN)
            weights.append(np.full(log_KN.shape[1], 1 / (len(texts) * log_KN.shape[1])))
    return _Predictions(np.concatenate(logs, axis=1), np.concatenate(weights))


def _lengths(batches: Sequence[TokenBatch]) -> npt.NDArray[np.int64]:
    """Return how many losses each item has: of its tokens, items without any left out, or one of multiple choice."""
    counts = [
        np.ones(batch.terms, dtype=np.int64) if isinstance(batch, ChoiceBatch) else batch.loss_BS[:, 1:].sum(axis=1)
        for batch in batches
    ]
    length_N = np.concatenate(counts)
    return length_N[length_N > 0]


@dataclass(frozen=True, eq=False)
class _Decision:
    """The likeliest mixture of the branches; losses are means over the targets, in nats per token."""

    weights_K: FloatArray
    loss: float
    loss_of_uniform: float
    loss_K: FloatArray
    """Of each branch alone."""
    fit: LikeliestMixture

    def notes(self, parameters: MixminParameters) -> tuple[str, ...]:
        """Say where the mixture is doubtful."""
        group, iterations, tolerance = "baselines.mixmin", parameters.iterations, parameters.tolerance
        notes = self.fit.notes(group, iterations=iterations, tolerance=tolerance)
        gain = self.loss_of_uniform - self.loss
        if gain >= _FAINT:
            return notes
        faint = (
            f"MixMin's branches hardly differ: the best mixture of them gains {gain:.1g} nats per token over the "
            "uniform one. Longer branches (baselines.mixmin.tokens) would make it more than a guess."
        )
        return (*notes, faint)


def _decide(predictions: _Predictions, parameters: MixminParameters) -> _Decision:
    log_KN, weight_N = predictions.log_KN, predictions.weight_N
    # a factor that all branches have in common does not matter, and keeps long items within range
    best_N = log_KN.max(axis=0)
    total = float(weight_N.sum())
    fit = likeliest_mixture(
        np.maximum(np.exp(log_KN - best_N), _LEAST),
        weight_N / total,
        iterations=parameters.iterations,
        tolerance=parameters.tolerance / total,
    )
    fit = replace(fit, gap=fit.gap * total)
    # per token again
    loss_of_uniform, loss = (
        -float(weight_N @ best_N) - total * likelihood for likelihood in (fit.likelihoods[0], fit.likelihoods[-1])
    )
    return _Decision(
        fit.weights_K,
        loss,
        loss_of_uniform,
        -log_KN @ weight_N,
        fit,
    )
