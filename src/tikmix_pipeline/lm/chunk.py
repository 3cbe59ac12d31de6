"""One chunk of a run: from a checkpoint and a mixture to the next checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.model import resolve_device
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.parameters import ModelParameters, TrainParameters


def train_chunk(
    start: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    model: ModelParameters,
    train: TrainParameters,
    schedule: Schedule,
    seed: int,
    resume: Path | None = None,
    save: Callable[[TrainingState], None] | None = None,
    description: str = "Training",
) -> TrainingState:
    """Train the chunk that follows `start` under `mixture`.

    Args:
        start: where the chunk begins; its optimiser state and stream go on without a seam.
        resume: a checkpoint saved by `save` inside this very chunk, to go on from instead.
        save: keeps the state of a chunk under way.

    Returns:
        The state at the chunk's end, its records those of this chunk.

    Raises:
        TikmixError: the checkpoint has another tokenizer than the shards or its context is shorter than
            `train.context`, the mixture is not one of the shards' domains, or training diverges.
    """
    start.require_tokenizer(shards.tokenizer_digest)
    last_step = start.step + schedule.chunk_steps
    state = restore_state(Checkpoint(resume) if resume else start, shards, mixture, model=model, train=train, seed=seed)
    if resume is None:
        state.records.clear()
    state.stream.set_weights(mixture)
    train_steps(state, train, schedule, last_step=last_step, save=save, description=description)
    return state


def restore_state(
    checkpoint: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    model: ModelParameters,
    train: TrainParameters,
    seed: int,
) -> TrainingState:
    """Load a checkpoint ready to train; `mixture` counts where the checkpoint carries no stream of its own."""
    network = checkpoint.model(model)
    longest = getattr(network.config, "max_position_embeddings", train.context)
    if longest < train.context:
        raise TikmixError(
            f"train.context is {train.context}, but the model in {checkpoint.folder} takes at most {longest} tokens."
        )
    network.to(resolve_device(train.device))
    domains = {domain: shards.windows(domain, train.context) for domain in shards.domains}
    stream = MixtureStream(domains, mixture, batch_size=train.batch_size, seed=seed)
    state = TrainingState(network, NamedOptimizer(network, train), stream)
    checkpoint.restore(state)
    return state
