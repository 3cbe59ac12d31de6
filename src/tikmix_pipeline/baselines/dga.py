"""DGA, Dynamic Gradient Alignment (Fan, Grangier and Ablin 2024, arXiv 2410.02498): mirror descent along a training.

    a_j = ⟨∇f, ∇L_j⟩ at the weights reached           (`alignment`)
    ŵ_j ∝ w_j · exp(η a_j),   w ← (1 − β) w + β ŵ      every so many steps
    θ   goes on under w

The paper's is the training itself: the target model follows its own moving mixture. Here a mixture holds for a whole
chunk, so a copy of the checkpoint is trained by DGA for as long as `tokens` say, from the mixture in force on, and
where its mixture ends is kept for the chunks to come; the copy is thrown away. So the arm pays for a training that
the paper has for nothing, and its mixture does not follow the model any further.

Not verified: the equations, which are as reviews and other implementations have them, since no code was published with
the paper; its values of η, of β and of the steps between two measurements; and its importance sampling for thousands
of domains, which is left out.

Axes: K domains in the order of the shards.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tikmix_pipeline.baselines.alignment import AlignedTraining, Alignments, Rule
from tikmix_pipeline.baselines.baseline import Baseline, within_bounds
from tikmix_pipeline.corpus.batches import TokenBatch, digest_of
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.lm.branch_pool import BranchSetting
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.simplex import FloatArray, check_mixture
from tikmix_pipeline.parameters.baselines import DgaParameters
from tikmix_pipeline.parameters.training import LoadParameters, StepParameters
from tikmix_pipeline.store.keyed import KeyedEntry, key_of


class MovingMirrorDescent(Rule):
    """A moving average of steps of mirror descent with the entropy."""

    def __init__(self, weights_K: FloatArray, *, eta: float, beta: float) -> None:
        super().__init__(len(weights_K), weights=weights_K)
        self._eta, self._beta = eta, beta

    @property
    def mixture(self) -> FloatArray:
        """The moving average."""
        return self.state["weights"]

    def _answer(self, alignment_K: FloatArray) -> None:
        weights_K = self.state["weights"]
        # a factor common to all domains does not matter; one that has no share gets none
        largest = alignment_K[weights_K > 0].max()
        grown_K = np.where(weights_K > 0, weights_K * np.exp(np.minimum(self._eta * (alignment_K - largest), 0.0)), 0.0)
        self.state["weights"] = (1 - self._beta) * weights_K + self._beta * grown_K / grown_K.sum()


def dga(
    checkpoint: Checkpoint,
    shards: TokenShards,
    texts: Mapping[str, Sequence[TokenBatch]],
    current: Mapping[str, float],
    *,
    model: LoadParameters,
    train: StepParameters,
    schedule: Schedule,
    parameters: DgaParameters,
    seed: int,
    folder: Path,
    key: str,
    bounds: Bounds | None = None,
) -> Baseline:
    """Return the mixture that DGA ends with on a copy of a checkpoint, moved inside the bounds.

    Args:
        texts: the targets, by name (`influence.counterfactual.scored_texts`).
        current: the mixture in force, which DGA begins with.
        schedule: learning rates of the copy, by global step.
        seed: the run's, which also draws what gradients are taken on.
        folder: keeps the training, so that a stopped call goes on where it was.
        key: names the code that runs: work of other code is done again.

    Raises:
        TikmixError: the current mixture is none of the domains, or the copy diverges.
    """
    start_K = check_mixture(current, shards.domains, "the current mixture")
    steps = parameters.steps(train)
    setting = BranchSetting(checkpoint.folder, shards.folder, steps, model, train, schedule, seed)
    targets = {name: digest_of(batches) for name, batches in texts.items()}
    identity = [key, setting.described(), start_K.tolist(), targets, parameters.recorded()]
    training = AlignedTraining(
        start=checkpoint,
        shards=shards,
        model=model,
        train=train,
        schedule=schedule,
        seed=seed,
        steps=steps,
        kept=KeyedEntry(folder / "copy", key_of(identity)),
        description="Copy under DGA",
    )
    rule = MovingMirrorDescent(start_K, eta=parameters.eta, beta=parameters.beta)
    cost = training.run(rule, Alignments(shards, texts, parameters, train.context, seed))
    weights, moved = within_bounds(bounds, dict(zip(shards.domains, rule.mixture.tolist(), strict=True)))
    return Baseline(weights, cost, moved, rule.details(shards.domains))
