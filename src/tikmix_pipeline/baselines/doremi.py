"""DoReMi (Xie et al. 2023, arXiv 2305.10429): the mixture that a small model finds hardest to excel a reference on.

    reference   trained on the prior
    proxy       of the same size and initial weights, trained by group DRO on its excess loss (`group_dro`)
    mixture     the mean of the proxy's domain weights over its steps

It looks at no target: its goal is that no domain is left behind. Reference and proxy begin, at the run's own size,
from the run's own initial weights, since domain weights that one start suggests need not suit another; and they read
the corpus's own tokens, since another vocabulary has other excess losses.

With a large η or few rows per step, α runs to a corner (sangmichaelxie/doremi#5) and so does its mean, and a reference
that is worse than the proxy leaves nothing in excess and the weights uniform (#21): both are told in the notes.

Axes: K domains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.baselines.baseline import Baseline, within_bounds
from tikmix_pipeline.baselines.group_dro import DomainWeights, train_by_group_dro
from tikmix_pipeline.baselines.proxy import proxy_model, proxy_schedule, save_initial
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import check_weights
from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.files import read_json, write_json
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint
from tikmix_pipeline.lm.chunk import restore_state, train_chunk
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.simplex import FloatArray, entropy
from tikmix_pipeline.parameters import ModelParameters
from tikmix_pipeline.parameters.baselines import DoremiParameters
from tikmix_pipeline.parameters.training import StepParameters
from tikmix_pipeline.store.keyed import KeyedEntry, key_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_WEIGHTS = "domain_weights.json"
_FEW_DOMAINS = 1.5
"""Below so many effective domains (the exponential of the entropy) a mixture is all but one of them."""
_NO_EXCESS = 1e-3
"""A mean excess loss below this, in nats per token, drives no weight."""


def doremi(
    shards: TokenShards,
    prior: Mapping[str, float],
    *,
    model: ModelParameters,
    train: StepParameters,
    parameters: DoremiParameters,
    seed: int,
    folder: Path,
    key: str,
    bounds: Bounds | None = None,
) -> Baseline:
    """Return DoReMi's mixture for a corpus.

    Args:
        shards: the corpus.
        prior: what the reference is trained on.
        model: the run's; size and kind of attention are taken.
        train: the run's; both trainings differ in their length and learning rates (`proxy_schedule`), and the proxy's
            batch has as many rows of every domain, at least `train.batch_size` in all.
        parameters: sizes, η and c.
        seed: of initial weights and the order of the text.
        folder: keeps finished and unfinished trainings, so that a stopped call goes on where it was.
        key: names the code that runs: work of other code is done again.
        bounds: the result is moved inside them.

    Raises:
        TikmixError: the prior is no mixture of the domains, there is no such preset, or training diverged.
    """
    check_weights(prior, shards.domains)
    proxy = proxy_model(parameters.preset, model, "baselines.doremi.preset")
    identity = [key, prior, shards.manifest_digest, proxy.recorded(), train.recorded(), parameters.recorded(), seed]
    trainings = _Trainings(shards, proxy, train, parameters, seed, folder, key_of(identity))
    config = save_initial(proxy, shards, trainings.initial, context=train.context, seed=seed)
    trainings.train_reference(prior)
    found = trainings.train_proxy()
    mean_K = found.alpha_sum_K / found.alpha_sum_K.sum()
    weights, moved = within_bounds(bounds, dict(zip(shards.domains, mean_K.tolist(), strict=True)))
    excess_K = found.excess_sum_K / trainings.steps
    return Baseline(
        weights,
        trainings.cost(config),
        (*_notes(mean_K, excess_K, parameters), *moved),
        {
            "final": dict(zip(shards.domains, found.alpha_K.tolist(), strict=True)),
            "excess_loss": dict(zip(shards.domains, excess_K.tolist(), strict=True)),
            "steps": trainings.steps,
        },
    )


def _notes(mean_K: FloatArray, excess_K: FloatArray, parameters: DoremiParameters) -> tuple[str, ...]:
    notes = []
    if np.exp(entropy(mean_K)) < _FEW_DOMAINS:
        notes.append(
            f"DoReMi's mixture is {mean_K.max():.0%} of one domain. Smaller steps (baselines.doremi.eta, now "
            f"{parameters.eta:g}), larger batches (train.batch_size) or a longer training (baselines.doremi.tokens) "
            "keep it from such a corner."
        )
    if excess_K.max() < _NO_EXCESS:
        notes.append(
            "DoReMi's reference is hardly better than its proxy on any domain, so nothing moved the weights. Train "
            "both for longer (baselines.doremi.tokens)."
        )
    return tuple(notes)


@dataclass(frozen=True)
class _Trainings:
    """The training of the reference and that of the proxy, each kept in a folder under the key of both."""

    shards: TokenShards
    model: ModelParameters
    train: StepParameters
    parameters: DoremiParameters
    seed: int
    folder: Path
    key: str

    @property
    def initial(self) -> Path:
        """Where the weights are that both begin with; they follow from the seed and are written every time."""
        return self.folder / "initial"

    def _kept(self, name: str) -> KeyedEntry:
        return KeyedEntry(self.folder / name, self.key)

    @property
    def steps(self) -> int:
        """Optimiser steps of the reference, and of the proxy."""
        return -(-self.parameters.tokens // self.train.tokens_per_step)

    @property
    def proxy_rows(self) -> int:
        """Rows of the proxy's batch: as many of every domain."""
        count = len(self.shards.domains)
        return count * -(-self.train.batch_size // count)

    def train_reference(self, prior: Mapping[str, float]) -> None:
        """Train the reference, or what is missing of it."""
        reference, under_way = self._kept("reference"), self._kept("reference.part")
        if reference.find() is not None:
            return
        state = train_chunk(
            Checkpoint(self.initial),
            self.shards,
            prior,
            model=self.model,
            train=self.train.model_copy(update={"world_size": 1}),
            schedule=proxy_schedule(self.steps),
            seed=self.seed,
            resume=under_way,
            description="Reference",
        )
        with reference.replacing() as temporary:
            save_checkpoint(state, temporary, self.shards.tokenizer_folder)
        under_way.discard()

    def train_proxy(self) -> DomainWeights:
        """Train the proxy, or what is missing of it; return its domain weights after the last step."""
        count = len(self.shards.domains)
        kept = self._kept("proxy")
        under_way = kept.find()
        state = restore_state(
            Checkpoint(under_way or self.initial),
            self.shards,
            dict.fromkeys(self.shards.domains, 1 / count),
            model=self.model,
            train=self.train.model_copy(update={"batch_size": self.proxy_rows}),
            seed=self.seed,
        )
        weights = (
            DomainWeights.from_dict(read_json(under_way / _WEIGHTS)) if under_way else DomainWeights.uniform(count)
        )

        def keep() -> None:
            with kept.replacing() as temporary:
                save_checkpoint(state, temporary, self.shards.tokenizer_folder)
                write_json(temporary / _WEIGHTS, weights.to_dict())

        if state.step < self.steps:
            train_by_group_dro(
                state,
                weights,
                Checkpoint(self.folder / "reference").model(self.model).to(resolve_device(self.train.device)),
                train=self.train,
                schedule=proxy_schedule(self.steps),
                parameters=self.parameters,
                steps=self.steps,
                save=keep,
            )
            keep()
        return weights

    def cost(self, config: "PretrainedConfig") -> Cost:
        """Return what both trainings cost, with the passes of the reference over the proxy's batches."""
        context = self.train.context
        reference = self.steps * self.train.tokens_per_step
        proxy = self.steps * self.proxy_rows * context
        is_read_twice = self.train.micro_batch_size is not None and self.train.micro_batch_size < self.proxy_rows
        return training_cost(config, context=context, tokens=reference + proxy) + scoring_cost(
            config, context=context, tokens=proxy * (2 if is_read_twice else 1)
        )
