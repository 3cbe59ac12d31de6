"""A branch, or lookahead run: a short training from a checkpoint under a mixture of its own.

A branch goes on where the checkpoint stands, with its optimiser state, its step (and so its learning rate) and its
place in every domain's text. What differs between two branches is the mixture alone.

Replicates of a branch read other text. Replicate r leaves out r times as many windows of each domain as any branch of
the comparison may read of it; from there every branch of that replicate reads a domain's windows in one order, only
more or fewer of them. The noise that the text brings is so common to the branches of a replicate and independent
between replicates, unless a domain is so short that its next epoch is reached: the same windows in another order.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.launch import folder_beside
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.chunk import restore_state, train_chunk
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.parameters.training import LoadParameters, StepParameters
from tikmix_pipeline.store.keyed import KeyedEntry


def train_branch(
    checkpoint: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    steps: int,
    replicate: int = 0,
    reach: Mapping[str, int] | None = None,
    model: LoadParameters,
    train: StepParameters,
    schedule: Schedule,
    seed: int,
    description: str = "Training",
) -> TrainingState:
    """Train `steps` more steps from a checkpoint under `mixture`.

    Args:
        checkpoint: where the branch begins; it is not changed.
        shards: the corpus that the checkpoint was trained on.
        mixture: share of each domain in the tokens of the branch.
        steps: optimiser steps.
        replicate: which text is read; 0 goes on with the very text that training would read next.
        reach: windows of each domain that any branch to be compared with may read (`windows_in_reach`); by default as
            many as the whole branch has.
        model: how the checkpoint is loaded.
        train: what the checkpoint was trained with. `train.world_size` processes work beside the checkpoint, on
            replicate 0 alone.
        schedule: learning rates by global step.
        seed: the run's.
        description: of the progress bar.

    Returns:
        The trained model, on `train.device`, or the CPU if ranks trained it, and all that is needed to go on.

    Raises:
        TikmixError: the checkpoint fits neither shards nor parameters, the mixture is none of their domains, or ranks
            fail (`run_ranks`).
        DivergedError: the loss or its gradient is no longer finite.
    """
    if train.world_size > 1:
        if replicate:
            raise ValueError("a branch of several processes goes on with the text that training would read next")
        resume = KeyedEntry(folder_beside(checkpoint.folder), "branch")
        resume.discard()
        schedule = replace(schedule, chunk_steps=steps)  # a branch is a chunk of so many steps
        as_chunk = partial(train_chunk, checkpoint, shards, mixture, model=model, train=train, schedule=schedule)
        state = as_chunk(seed=seed, resume=resume, description=description)
        resume.discard()
        return state
    checkpoint.require_tokenizer(shards.tokenizer_digest)
    state = restore_state(checkpoint, shards, mixture, model=model, train=train, seed=seed)
    windows = reach if reach is not None else dict.fromkeys(shards.domains, steps * train.batch_size)
    state.stream.skip({domain: replicate * count for domain, count in windows.items()})
    state.stream.set_weights(mixture)
    train_steps(state, train, schedule, last_step=state.step + steps, description=description)
    return state


def windows_in_reach(mixtures: Iterable[Mapping[str, float]], *, steps: int, batch_size: int) -> dict[str, int]:
    """Return the most windows of each domain that a branch of `steps` steps reads under one of `mixtures`."""
    largest: dict[str, float] = {}
    for mixture in mixtures:
        for domain, share in mixture.items():
            largest[domain] = max(share, largest.get(domain, 0.0))
    # a stream is within one row of its weights at either end of any stretch of batches
    most = {domain: math.ceil(share * steps * batch_size) + 1 for domain, share in largest.items()}
    return {domain: min(count, steps * batch_size) for domain, count in most.items()}
