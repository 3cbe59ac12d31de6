"""One chunk of a run: from a checkpoint and a mixture to the next checkpoint, by one process or by several."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.distributed.job import Job
from tikmix_pipeline.distributed.launch import require_done, run_ranks
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint
from tikmix_pipeline.lm.known_ids import require_known_ids
from tikmix_pipeline.lm.model import blocks_of, prepare_blocks
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.resume import (
    ResumeFolder,
    clear_unfinished,
    find_point,
    is_point,
    lay_out,
    load_ranks_point,
    point_at,
    save_ranks_point,
)
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.parameters.training import LoadParameters, RestoreParameters, StepParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def train_chunk(
    start: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    model: LoadParameters,
    train: StepParameters,
    schedule: Schedule,
    seed: int,
    resume: ResumeFolder | None = None,
    description: str = "Training",
) -> TrainingState:
    """Train the chunk that follows `start` under `mixture`; go on from what is kept of it.

    Args:
        start: where the chunk begins; its optimiser state and stream go on without a seam.
        mixture: share of each domain in the tokens of the chunk.
        train: how a step is made. `train.world_size` processes train from one resume point to another, which is then
            read as any other would be.
        schedule: learning rates by global step, and how many steps the chunk has.
        resume: where the chunk is kept while it is under way; several processes need one.

    Returns:
        The state at the chunk's end, its records those of this chunk; on the CPU, if ranks trained it.

    Raises:
        TikmixError: the checkpoint has another tokenizer than the shards, does not fit them or the parameters
            (`restore_state`), the mixture is not one of the shards' domains, training diverges, or ranks fail
            (`run_ranks`).
    """
    part = partial(
        run_chunk, start, shards, mixture, model=model, schedule=schedule, seed=seed, description=description
    )
    if train.world_size == 1:
        if resume is None:
            return part(train=train)

        def keep(state: TrainingState) -> None:
            resume.save(partial(save_checkpoint, state, tokenizer=shards.tokenizer_folder))

        return part(train=train, resume=resume.find(), save=keep)
    if resume is None:
        raise ValueError("several processes need a folder to work in")
    arguments = {
        "folder": resume.folder,
        "start": start.folder,
        "shards": shards.folder,
        "mixture": dict(mixture),
        "model": model,
        "train": train,
        "schedule": schedule,
        "seed": seed,
        "description": description,
    }
    job = Job(_train_as_rank, arguments, train)
    lay_out(job, resume)
    run_ranks(job, resume.folder)
    require_done(is_point(point_at(resume.folder, start.step + schedule.chunk_steps)), train)
    return part(train=train.model_copy(update={"device": "cpu"}), resume=resume.folder)


_JOINED = "tikmix_pipeline.distributed.sharding:joined"
"""What makes a rank's mesh: with it a chunk's code (`store.code`) has what ranks do otherwise than one process."""


def _train_as_rank(
    *,
    folder: Path,
    mesh: Annotated[Mesh, _JOINED],
    start: Path,
    shards: Path,
    mixture: dict[str, float],
    model: LoadParameters,
    train: StepParameters,
    schedule: Schedule,
    seed: int,
    description: str,
) -> None:
    """Do one rank's part of a chunk, from the last resume point to the chunk's end."""
    if mesh.world.is_rank_zero:
        clear_unfinished(folder)
    mesh.world.barrier()
    state = run_chunk(
        Checkpoint(start),
        TokenShards.open(shards),
        mixture,
        model=model,
        train=train,
        schedule=schedule,
        seed=seed,
        resume=folder,
        save=partial(save_ranks_point, folder=folder),
        description=description,
        mesh=mesh,
    )
    save_ranks_point(state, folder)


def run_chunk(
    start: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    model: LoadParameters,
    train: StepParameters,
    schedule: Schedule,
    seed: int,
    resume: Path | None = None,
    save: Callable[[TrainingState], object] | None = None,
    description: str = "Training",
    mesh: Mesh = SINGLE_MESH,
) -> TrainingState:
    """Do this process's part of a chunk, all of it if it is alone; for the rest see `train_chunk`.

    Args:
        resume: a folder with a resume point of this very chunk (`resume.find_point`), to go on from.
        save: keeps the state of a chunk under way.
    """
    start.require_tokenizer(shards.tokenizer_digest)
    last_step = start.step + schedule.chunk_steps
    point = find_point(resume) if resume else None
    of_ranks = point is not None and is_point(point)
    begin = Checkpoint(point) if point and not of_ranks else start
    state = restore_state(begin, shards, mixture, model=model, train=train, seed=seed, mesh=mesh, network_only=of_ranks)
    if point is None:
        state.records.clear()
    elif of_ranks:
        load_ranks_point(state, point)
    state.stream.set_weights(mixture)
    train_steps(state, train, schedule, last_step=last_step, save=save, description=description, mesh=mesh)
    return state


def restore_state(
    checkpoint: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    model: LoadParameters,
    train: StepParameters,
    seed: int,
    mesh: Mesh = SINGLE_MESH,
    network_only: bool = False,
) -> TrainingState:
    """Load a checkpoint ready to train; `mixture` counts where the checkpoint carries no stream of its own.

    With `network_only` optimiser, step and records are left out, which are to come from elsewhere. Each process of the
    mesh calls this. Errors are those of `restore_network`, or the checkpoint was trained with another optimiser.
    """
    network, stream = restore_network(
        checkpoint, shards, mixture, model=model, train=train, seed=seed, mesh=mesh, training_in=train.precision
    )
    state = TrainingState(network, NamedOptimizer(network, train), stream, seed)
    if not network_only:
        checkpoint.restore(state, mesh)
    return state


def restore_network(
    checkpoint: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    model: LoadParameters,
    train: RestoreParameters,
    seed: int,
    mesh: Mesh = SINGLE_MESH,
    training_in: str | None = None,
) -> tuple["PreTrainedModel", MixtureStream]:
    """Load a checkpoint's model ready to be measured, or to be trained, and its place in the text.

    Args:
        mixture: that of a checkpoint which carries no stream of its own.
        train: how long its sequences and how large its batches were, and where it is to lie.
        seed: the run's, which decides the order of the text.
        mesh: the processes that work on it together; each calls this.
        training_in: the precision that it is to be trained in, if it is.

    Raises:
        TikmixError: the device is not there, the mixture is not one of the shards' domains, a domain is shorter than
            `train.context`, the model takes fewer tokens or knows fewer ids than it would be given, or the checkpoint
            was trained with another seed, batch size, context or corpus.
    """
    domains = {domain: shards.windows(domain, train.context) for domain in shards.domains}
    stream = MixtureStream(domains, mixture, batch_size=train.batch_size, seed=seed)
    network = checkpoint.model(model)
    longest = getattr(network.config, "max_position_embeddings", train.context)
    if longest < train.context:
        raise TikmixError(
            f"train.context is {train.context}, but the model in {checkpoint.folder} takes at most {longest} tokens. "
            "Lower it."
        )
    require_known_ids(shards, len(network.get_input_embeddings().weight), checkpoint.folder)
    if mesh.world.world_size == 1 or training_in:
        prepare_blocks(network, train)
    blocks = blocks_of(network)
    if training_in:
        mesh.place_for_training(network, blocks, device=train.device, precision=training_in)
    else:
        mesh.place_for_measuring(network, blocks, device=train.device)
    saved = checkpoint.training_state()
    if saved:
        stream.load_state_dict(saved["stream"])
    return network, stream
