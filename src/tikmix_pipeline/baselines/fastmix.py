"""FastMix (Tan et al. 2026, arXiv 2606.14971, hrtan/fastmix): one proxy, whose mixture is trained beside its weights.

    w = softmax(z),  z = 0 at first
    a_j = ⟨∇f, ∇L_j⟩ by the output head alone          (`alignment`)
    ∂/∂z_j = −w_j (a_j − Σ_k w_k a_k)                  for Adam, every so many steps
    θ   is trained under w meanwhile

That is the loss of the targets after one step of plain gradient descent on the mixture, differentiated by z. The
mixture is softmax(z) at the end. Adam's moments are those of the published code (0.9, 0.95, no decay); its entropy
term has the weight 0 there and is left out, and so is the factor of the learning rate, which Adam divides out.

What differs: the published code reads all domains alike and weighs their losses by w, which the paper shows to be the
same in the mean as what is done here, reading them by w; its targets' gradient is over all items each time, here over
some drawn anew; and the optimiser is the run's. The published proxy has a million parameters and some 1,600
measurements with Adam's rate at 0.01; here they are fewer and larger. It is trained from scratch: the checkpoint has
no say.

Axes: K domains in the order of the shards.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tikmix_pipeline.baselines.alignment import AlignedTraining, Alignments, Rule
from tikmix_pipeline.baselines.baseline import Baseline, proxy_model, proxy_schedule, save_initial, within_bounds
from tikmix_pipeline.corpus.batches import TokenBatch, digest_of
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters import ModelParameters
from tikmix_pipeline.parameters.baselines import FastmixParameters
from tikmix_pipeline.parameters.training import StepParameters
from tikmix_pipeline.store.keyed import KeyedEntry, key_of

_BETA1, _BETA2, _EPSILON = 0.9, 0.95, 1e-8


class AdamOnLogits(Rule):
    """Adam on the logits of a mixture, which begins uniform."""

    def __init__(self, domains: int, *, learning_rate: float) -> None:
        zero_K = np.zeros(domains)
        super().__init__(domains, logits=zero_K, mean=zero_K, square=zero_K)
        self._learning_rate = learning_rate

    @property
    def mixture(self) -> FloatArray:
        """The softmax of the logits."""
        grown_K = np.exp(self.state["logits"] - self.state["logits"].max())
        shares_K: FloatArray = grown_K / grown_K.sum()
        return shares_K

    def _answer(self, alignment_K: FloatArray) -> None:
        weights_K = self.mixture
        gradient_K = -weights_K * (alignment_K - weights_K @ alignment_K)
        mean_K = _BETA1 * self.state["mean"] + (1 - _BETA1) * gradient_K
        square_K = _BETA2 * self.state["square"] + (1 - _BETA2) * gradient_K**2
        corrected_K = mean_K / (1 - _BETA1**self.measurements)
        root_K = np.sqrt(square_K / (1 - _BETA2**self.measurements))
        logits_K = self.state["logits"] - self._learning_rate * corrected_K / (root_K + _EPSILON)
        self.state |= {"logits": logits_K, "mean": mean_K, "square": square_K}


def fastmix(
    shards: TokenShards,
    texts: Mapping[str, Sequence[TokenBatch]],
    *,
    model: ModelParameters,
    train: StepParameters,
    parameters: FastmixParameters,
    seed: int,
    folder: Path,
    key: str,
    bounds: Bounds | None = None,
) -> Baseline:
    """Return FastMix's mixture for a corpus and targets, moved inside the bounds.

    Args:
        texts: the targets, by name (`influence.counterfactual.scored_texts`).
        model: the run's; its kind of attention is taken.
        train: the run's; the proxy differs in its length and its learning rates (`proxy_schedule`).
        seed: of initial weights, and of the order of the text.
        folder: keeps the training, so that a stopped call goes on where it was.
        key: names the code that runs: work of other code is done again.

    Raises:
        TikmixError: there is no such preset, or the proxy diverges.
    """
    proxy = proxy_model(parameters.preset, model, "baselines.fastmix.preset")
    targets = {name: digest_of(batches) for name, batches in texts.items()}
    identity = [key, shards.manifest_digest, targets, proxy.recorded(), train.recorded(), parameters.recorded(), seed]
    save_initial(proxy, shards, folder / "initial", context=train.context, seed=seed)
    steps = parameters.steps(train)
    training = AlignedTraining(
        start=Checkpoint(folder / "initial"),
        shards=shards,
        model=proxy,
        train=train,
        schedule=proxy_schedule(steps),
        seed=seed,
        steps=steps,
        kept=KeyedEntry(folder / "proxy", key_of(identity)),
        description="Proxy of FastMix",
    )
    rule = AdamOnLogits(len(shards.domains), learning_rate=parameters.learning_rate)
    cost = training.run(rule, Alignments(shards, texts, parameters, train.context, seed, head_only=True))
    weights, moved = within_bounds(bounds, dict(zip(shards.domains, rule.mixture.tolist(), strict=True)))
    return Baseline(weights, cost, moved, rule.details(shards.domains))
