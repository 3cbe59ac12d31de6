"""Group DRO on the excess loss: DoReMi's second training (Xie et al. 2023, arXiv 2305.10429, Algorithm 1).

A step reads as many rows of every domain and, with ℓ the proxy's loss of a token and ℓ_ref the reference's,

    λ_j  = mean over domain j's tokens of max(ℓ − ℓ_ref, 0)
    α_j ∝ α_j · exp(η λ_j),   then   α ← (1 − c) α + c / K
    θ  follows the gradient of Σ_j α_j · (mean of ℓ over domain j's tokens)

with the α of this very step. The mixture is the mean of α over all steps. The published code goes astray where this
does not: it weighs all but the last of a step's micro-batches by the α of the step before, and lets domains that a
batch happens to miss keep an old λ.

Axes: B rows of a batch, P predicted tokens of a row, S = P + 1, K domains in the order of the stream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.lm.loss import device_of, next_token_logits
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import DivergedError, TrainingState
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.baselines import DoremiParameters
from tikmix_pipeline.parameters.training import StepParameters
from tikmix_pipeline.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain values for JSON."""
        return {name: value.tolist() for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> "DomainWeights":
        """Restore what `to_dict` returned."""
        return cls(**{name: np.array(value) for name, value in values.items()})


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
    """Train a proxy until `steps` steps are done, and follow its domain weights.

    Args:
        state: of the proxy; its stream mixes all domains equally. Changed in place.
        weights: α so far; changed in place.
        reference: on the proxy's device.
        train: precision, gradient clip, rows per forward pass.
        schedule: learning rates by step.
        parameters: η and c.
        steps: of the whole training.
        save: called every `train.save_every_steps` steps.

    Raises:
        DivergedError: a loss or the gradient is no longer finite.
    """
    state.model.train()
    reference.eval()
    with progress_bar("Proxy by group DRO", steps - state.step, "step") as bar:
        while state.step < steps:
            _step(state, weights, reference, train, schedule, parameters)
            bar.update(1)
            if state.step < steps and state.step % train.save_every_steps == 0:
                save()


def _step(
    state: TrainingState,
    weights: DomainWeights,
    reference: nn.Module,
    train: StepParameters,
    schedule: Schedule,
    parameters: DoremiParameters,
) -> None:
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
