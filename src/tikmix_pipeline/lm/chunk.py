"""One chunk of a run: from a checkpoint and a mixture to the next checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.model import resolve_device
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.parameters import ModelParameters, TrainParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
        TikmixError: the checkpoint has another tokenizer than the shards, does not fit them or the parameters
            (`restore_state`), the mixture is not one of the shards' domains, or training diverges.
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
    """Load a checkpoint ready to train; `mixture` counts where the checkpoint carries no stream of its own.

    Raises:
        TikmixError: the device is not there, the mixture is not one of the shards' domains, a domain is shorter than
            `train.context`, the model takes fewer tokens or ids than it would be given, or the checkpoint was trained
            with another seed, batch size, context, corpus or optimiser.
    """
    device = resolve_device(train.device)
    domains = {domain: shards.windows(domain, train.context) for domain in shards.domains}
    stream = MixtureStream(domains, mixture, batch_size=train.batch_size, seed=seed)
    network = checkpoint.model(model)
    _check_fit(network, checkpoint.folder, shards, train)
    network.to(device)
    state = TrainingState(network, NamedOptimizer(network, train), stream, seed)
    checkpoint.restore(state)
    return state


def _check_fit(network: "PreTrainedModel", folder: Path, shards: TokenShards, train: TrainParameters) -> None:
    longest = getattr(network.config, "max_position_embeddings", train.context)
    if longest < train.context:
        raise TikmixError(
            f"train.context is {train.context}, but the model in {folder} takes at most {longest} tokens. Lower it."
        )
    known_ids = network.get_input_embeddings().weight.shape[0]
    if known_ids < shards.vocabulary_size:
        raise TikmixError(
            f"The corpus has {shards.vocabulary_size} token ids, but the model in {folder} knows {known_ids}. Resize "
            "its embeddings (resize_token_embeddings), or tokenise the corpus with the tokenizer it was trained on."
        )
