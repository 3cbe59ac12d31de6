"""DoReMi (Xie et al. 2023, arXiv 2305.10429): the mixture that a small model finds hardest to excel a reference on.

    reference   trained on the prior
    proxy       of the same size and initial weights, trained by group DRO on its excess loss
    mixture     the mean of the proxy's domain weights over its steps

A step of group DRO (Algorithm 1) reads as many rows of every domain and, with ℓ the proxy's loss of a token and ℓ_ref
the reference's,

    λ_j  = mean over domain j's tokens of max(ℓ − ℓ_ref, 0)
    α_j ∝ α_j · exp(η λ_j),   then   α ← (1 − c) α + c / K
    θ  follows the gradient of Σ_j α_j · (mean of ℓ over domain j's tokens)

with the α of this very step. The published code goes astray where this does not: it weighs all but the last of a step's
micro-batches by the α of the step before, and lets domains that a batch happens to miss keep an old λ.

It looks at no target: its goal is that no domain is left behind. Reference and proxy begin, at the run's own size,
from the run's own initial weights, since domain weights that one start suggests need not suit another; and they read
the corpus's own tokens, since another vocabulary has other excess losses.

With a large η or few rows per step, α runs to a corner (sangmichaelxie/doremi#5) and so does its mean, and a reference
that is worse than the proxy leaves nothing in excess and the weights uniform (#21): both are told in the notes.

Axes: B rows of a batch, P predicted tokens of a row, S = P + 1, K domains in the order of the stream.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tikmix_pipeline.baselines.baseline import Baseline, proxy_model, proxy_schedule, save_initial, within_bounds
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream, check_weights
from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.files import read_json, write_json
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint
from tikmix_pipeline.lm.chunk import restore_state, train_chunk
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.lm.divergence import STEPS_TO_JUDGE_BY, DivergedError, require_better_than_guessing
from tikmix_pipeline.lm.loss import device_of, next_token_logits
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.simplex import FloatArray, entropy
from tikmix_pipeline.parameters import ModelParameters
from tikmix_pipeline.parameters.baselines import DoremiParameters
from tikmix_pipeline.parameters.training import StepParameters
from tikmix_pipeline.progress import progress_bar
from tikmix_pipeline.store.keyed import KeyedEntry, key_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

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
    """Return DoReMi's mixture for a corpus, moved inside the bounds.

    Args:
        prior: what the reference is trained on.
        model: the run's; size and kind of attention are taken.
        train: the run's; both trainings differ in their length and learning rates (`proxy_schedule`), and the proxy's
            batch has as many rows of every domain, at least `train.batch_size` in all.
        parameters: sizes, η and c.
        seed: of initial weights and the order of the text.
        folder: keeps finished and unfinished trainings, so that a stopped call goes on where it was.
        key: names the code that runs: work of other code is done again.

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


@dataclass
class DomainWeights:
    """α, and its sum and that of λ over the steps so far."""

    alpha_K: FloatArray
    alpha_sum_K: FloatArray
    excess_sum_K: FloatArray

    @classmethod
    def uniform(cls, count: int) -> "DomainWeights":
        """Return the weights before the first step."""
        return cls(np.full(count, 1 / count), np.zeros(count), np.zeros(count))

    def update(self, excess_K: FloatArray, *, eta: float, smoothing: float) -> None:
        """Take a step of the exponentiated gradient towards domains of large excess loss λ, in nats per token."""
        # a factor common to all domains does not matter
        grown_K = self.alpha_K * np.exp(eta * (excess_K - excess_K.max()))
        self.alpha_K = (1 - smoothing) * grown_K / grown_K.sum() + smoothing / len(grown_K)
        self.alpha_sum_K += self.alpha_K
        self.excess_sum_K += excess_K

    def save(self, file: Path) -> None:
        """Write JSON."""
        write_json(file, {name: value.tolist() for name, value in vars(self).items()})

    @classmethod
    def load(cls, file: Path) -> "DomainWeights":
        """Read what `save` wrote."""
        return cls(**{name: np.array(value) for name, value in read_json(file).items()})


def train_by_group_dro(
    state: TrainingState,
    weights: DomainWeights,
    reference: "PreTrainedModel",
    *,
    train: StepParameters,
    schedule: Schedule,
    parameters: DoremiParameters,
    steps: int,
    save: Callable[[], None],
) -> None:
    """Train a proxy until `steps` steps are done, and follow its domain weights; both are changed in place.

    The proxy's stream mixes all domains equally, and the reference is on its device. `save` is called every
    `train.save_every_steps` steps.

    Raises:
        DivergedError: a loss or the gradient is no longer finite, or the proxy ends worse than guessing.
    """
    state.model.train()
    reference.eval()
    last: deque[float] = deque(maxlen=STEPS_TO_JUDGE_BY)
    with progress_bar("Proxy by group DRO", steps - state.step, "step") as bar:
        while state.step < steps:
            last.append(_step(state, weights, reference, train, schedule, parameters))
            bar.update(1)
            if state.step < steps and state.step % train.save_every_steps == 0:
                save()
    require_better_than_guessing(last, state.model.config.vocab_size, of="the last steps of DoReMi's proxy")


def _step(
    state: TrainingState,
    weights: DomainWeights,
    reference: nn.Module,
    train: StepParameters,
    schedule: Schedule,
    parameters: DoremiParameters,
) -> float:
    windows_BS, domain_B = _next_batch(state.stream)
    tokens_BS = torch.from_numpy(windows_BS).to(device_of(state.model))
    size = train.micro_batch_size or len(tokens_BS)
    micro_batches = torch.split(tokens_BS, size)
    # α needs the losses of the whole batch, and the gradient needs α: of several micro-batches each is read twice
    is_whole = len(micro_batches) == 1
    with torch.set_grad_enabled(is_whole):
        losses = [_token_losses(state.model, rows_BS, train.precision) for rows_BS in micro_batches]
    with torch.no_grad():
        known = [_token_losses(reference, rows_BS, train.precision) for rows_BS in micro_batches]
        excess_B = (torch.cat(losses) - torch.cat(known)).clamp(min=0).mean(dim=1)
    rows_K = np.bincount(domain_B, minlength=len(weights.alpha_K))
    excess_K = np.bincount(domain_B, excess_B.double().cpu().numpy(), minlength=len(rows_K)) / rows_K
    weights.update(excess_K, eta=parameters.eta, smoothing=parameters.smoothing)
    weight_B = torch.from_numpy((weights.alpha_K / rows_K)[domain_B]).to(tokens_BS.device, torch.float32)
    for rows_BS, loss_BP, weight_b in zip(micro_batches, losses, torch.split(weight_B, size), strict=True):
        graph_BP = loss_BP if is_whole else _token_losses(state.model, rows_BS, train.precision)
        torch.autograd.backward((graph_BP.mean(dim=1) * weight_b).sum())
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), train.gradient_clip)
    if not (np.isfinite(excess_K).all() and torch.isfinite(norm)):
        raise DivergedError(
            f"DoReMi's proxy diverged at step {state.step + 1}: excess losses {excess_K.tolist()}, gradient norm "
            f"{float(norm)}. Lower train.learning_rate (now {train.learning_rate})."
        )
    state.optimizer.step(schedule.factor(state.step))
    state.step += 1
    return float(torch.cat(losses).detach().mean())


def _next_batch(stream: MixtureStream) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows of the next batch, domain by domain (B, S), and the domain of each (B,)."""
    counts = stream.counts()
    windows_BS = np.concatenate([stream.upcoming(domain, count) for domain, count in counts.items()])
    stream.next_batch()
    return windows_BS, np.repeat(np.arange(len(counts)), list(counts.values()))


def _token_losses(model: nn.Module, tokens_BS: Tensor, precision: str) -> Tensor:
    """Return the cross-entropy (B, P) of every token but the first of a row, in nats."""
    with torch.autocast(tokens_BS.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits_BPV = next_token_logits(model, tokens_BS)
    targets_BP = tokens_BS[:, 1:]
    return F.cross_entropy(logits_BPV.flatten(0, 1), targets_BP.flatten(), reduction="none").view(targets_BP.shape)


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
        weights = DomainWeights.load(under_way / _WEIGHTS) if under_way else DomainWeights.uniform(count)

        def keep() -> None:
            with kept.replacing() as temporary:
                save_checkpoint(state, temporary, self.shards.tokenizer_folder)
                weights.save(temporary / _WEIGHTS)

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
