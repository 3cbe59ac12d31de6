"""One chunk of a run: from a checkpoint and a mixture to the next checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.distributed.mesh import ALONE, Team
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.resume import find_point, is_spread
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
    save: Callable[[TrainingState], object] | None = None,
    description: str = "Training",
    team: Team = ALONE,
) -> TrainingState:
    """Train the chunk that follows `start` under `mixture`.

    Args:
        start: where the chunk begins; its optimiser state and stream go on without a seam.
        resume: a folder with a resume point of this very chunk (`resume.find_point`), to go on from instead.
        save: keeps the state of a chunk under way.
        team: the processes that train together; each calls this.

    Returns:
        The state at the chunk's end, its records those of this chunk.

    Raises:
        TikmixError: the checkpoint has another tokenizer than the shards, does not fit them or the parameters
            (`restore_state`), the mixture is not one of the shards' domains, or training diverges.
    """
    start.require_tokenizer(shards.tokenizer_digest)
    last_step = start.step + schedule.chunk_steps
    point = find_point(resume) if resume else None
    spread = point is not None and is_spread(point)
    from_here = point if point and not spread else start.folder
    state = restore_state(
        Checkpoint(from_here), shards, mixture, model=model, train=train, seed=seed, team=team, network_only=spread
    )
    if point and spread:
        from tikmix_pipeline.distributed.checkpoint import load_point

        load_point(state, point)
    if point is None:
        state.records.clear()
    state.stream.set_weights(mixture)
    train_steps(state, train, schedule, last_step=last_step, save=save, description=description, team=team)
    return state


def restore_state(
    checkpoint: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    model: ModelParameters,
    train: TrainParameters,
    seed: int,
    team: Team = ALONE,
    network_only: bool = False,
) -> TrainingState:
    """Load a checkpoint ready to train; `mixture` counts where the checkpoint carries no stream of its own.

    Args:
        team: the processes that train together; each calls this.
        network_only: leave the training state out, which is to come from elsewhere.

    Raises:
        TikmixError: the device is not there, the mixture is not one of the shards' domains, a domain is shorter than
            `train.context`, the model takes fewer tokens or ids than it would be given, or the checkpoint was trained
            with another seed, batch size, context, corpus or optimiser.
    """
    domains = {domain: shards.windows(domain, train.context) for domain in shards.domains}
    stream = MixtureStream(domains, mixture, batch_size=train.batch_size, seed=seed)
    network = checkpoint.model(model)
    _check_fit(network, checkpoint.folder, shards, train)
    team.spread(network, train)
    state = TrainingState(network, NamedOptimizer(network, train), stream, seed)
    if not network_only:
        checkpoint.restore(state, team)
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
