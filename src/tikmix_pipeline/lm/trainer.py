"""One chunk of training: a plain loop whose every step depends on the state and the stream alone.

`k` steps, a save, a restore and `n - k` steps give the same bits as `n` steps on one CPU. Cost over a bare loop of
forward, backward and step is measured by `benchmarks/trainer.py`.

Axes: B sequences, S tokens of a sequence (`context + 1`).
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.lm.divergence import STEPS_TO_JUDGE_BY, DivergedError, is_worse_than_guessing
from tikmix_pipeline.lm.loss import device_of, summed_loss
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.parameters.training import StepParameters
from tikmix_pipeline.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class StepRecord:
    """What one optimiser step did; loss in nats per token, before the step."""

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float


@dataclass
class TrainingState:
    """All that the next step depends on, except the stream's shards."""

    model: "PreTrainedModel"
    optimizer: NamedOptimizer
    stream: MixtureStream
    seed: int = 0
    """Of the model's dropout, where it has any."""
    step: int = 0
    records: list[StepRecord] = field(default_factory=list)
    """Of the chunk under way."""


def train_steps(
    state: TrainingState,
    parameters: StepParameters,
    schedule: Schedule,
    *,
    last_step: int,
    save: Callable[[TrainingState], object] | None = None,
    description: str = "Training",
    mesh: Mesh = SINGLE_MESH,
) -> None:
    """Train until `last_step` optimiser steps are done, counted from the start of the run.

    Args:
        state: changed in place; one record is appended per step.
        save: called every `parameters.save_every_steps` steps, so that a stopped chunk can be resumed.
        mesh: the processes that share every step; each calls this.

    Raises:
        DivergedError: the loss or its gradient is no longer finite, and the weights are those before the bad step; or
            the median of the last 20 steps is worse than guessing.
    """
    if state.step >= last_step:
        return
    state.model.train()
    tokens_left = (last_step - state.step) * parameters.tokens_per_step
    device = device_of(state.model)
    # whoever calls keeps the random numbers it had
    random_numbers = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with random_numbers, progress_bar(description, tokens_left, "tok") as bar:
        while state.step < last_step:
            _step(state, parameters, schedule, mesh)
            bar.update(parameters.tokens_per_step)
            if save is not None and state.step < last_step and state.step % parameters.save_every_steps == 0:
                save(state)


def _step(state: TrainingState, parameters: StepParameters, schedule: Schedule, mesh: Mesh) -> None:
    _seed_dropout(state, mesh.world.rank)
    loss = mesh.world.all_reduce(_accumulate_gradients(state, parameters, mesh))
    norm = mesh.full_tensor(nn.utils.clip_grad_norm_(state.model.parameters(), parameters.gradient_clip))
    loss_value, norm_value = torch.stack([loss, norm]).tolist()
    recent = [*(record.loss for record in state.records[1 - STEPS_TO_JUDGE_BY :]), loss_value]
    vocabulary = state.model.config.vocab_size
    is_lost = len(recent) == STEPS_TO_JUDGE_BY and is_worse_than_guessing([statistics.median(recent)], vocabulary)
    if is_lost or not (math.isfinite(loss_value) and math.isfinite(norm_value)):
        worse = f", and the median of the last {STEPS_TO_JUDGE_BY} steps is worse than guessing" if is_lost else ""
        raise DivergedError(
            f"Training diverged at step {state.step + 1}: loss {loss_value}, gradient norm {norm_value}{worse}. The "
            f"rounds before are kept. Lower train.learning_rate (now {parameters.learning_rate}) or "
            f"train.gradient_clip (now {parameters.gradient_clip}), or lengthen train.warmup_tokens."
        )
    factor = schedule.factor(state.step)
    state.optimizer.step(factor)
    state.step += 1
    tokens = state.step * parameters.tokens_per_step
    state.records.append(StepRecord(state.step, tokens, loss_value, parameters.learning_rate * factor, norm_value))


def _seed_dropout(state: TrainingState, rank: int) -> None:
    """Draw dropout, which a user's model may have, from the seed and the step, so that a resumed run repeats it."""
    # the ranks have other rows, and so other draws
    entropy = [state.seed, state.step, *([rank] if rank else [])]
    (drawn,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    torch.manual_seed(int(drawn))


def _accumulate_gradients(state: TrainingState, parameters: StepParameters, mesh: Mesh) -> Tensor:
    """Add the gradient of the batch's mean loss, micro-batch by micro-batch; return this process's part of that loss.

    Axes: B rows of this process.
    """
    windows_BS: npt.NDArray[np.int64] = state.stream.next_batch(mesh.world.rank, mesh.world.world_size)
    device = device_of(state.model)
    loss_tokens = len(windows_BS) * (windows_BS.shape[1] - 1) * mesh.world.world_size
    size = parameters.micro_batch_size or len(windows_BS)
    total = torch.zeros((), device=device)
    for start in range(0, len(windows_BS), size):
        with mesh.autocast(device, parameters.precision):
            loss, _ = summed_loss(state.model, TokenBatch.of_windows(windows_BS[start : start + size]))
        mean = loss / loss_tokens
        mean.backward()
        total += mean.detach()
    return total
