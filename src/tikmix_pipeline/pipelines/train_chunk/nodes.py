"""Nodes of the `train_chunk` pipeline."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.paths import ResumePoint
from tikmix_pipeline.files import folder_signature
from tikmix_pipeline.parameters import ModelParameters, RunParameters, TrainParameters
from tikmix_pipeline.parameters.training import HOW_IT_IS_SPREAD
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Checkpoint, Table, TokenShards

_SCHEDULED = {"warmup_tokens", "decay_tokens", "final_learning_rate_fraction"}
_NOT_OF_TRAINING = {"save_every_steps", "evaluation_items", "evaluation_windows", "device", *HOW_IT_IS_SPREAD}


def _relevant_to_start(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number
    checkpoint = parameters.model.checkpoint
    return {
        "model": parameters.model.model_dump(mode="json"),
        "train": parameters.train.model_dump(mode="json", include={"context"}),
        "seed": parameters.seed,
        "files": folder_signature(root / checkpoint) if checkpoint else [],
    }


def _relevant_to_training(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    from tikmix_pipeline.lm.schedule import Schedule

    del root
    schedule = Schedule.of(parameters.train, max(parameters.tikmix.rounds, round_number + 1))
    first, end = round_number * schedule.chunk_steps, (round_number + 1) * schedule.chunk_steps
    rates: dict[str, Any] = {"chunk_steps": schedule.chunk_steps}
    # the ends of the schedule matter only to the chunks they reach into
    if first < schedule.warmup_steps:
        rates["warmup_steps"] = schedule.warmup_steps
    if end > schedule.total_steps - schedule.decay_steps:
        rates |= {
            "decay_steps": schedule.decay_steps,
            "steps_after_this_round": schedule.total_steps - end,
            "final_learning_rate_fraction": schedule.final_fraction,
        }
    return {
        "train": parameters.train.model_dump(mode="json", exclude=_NOT_OF_TRAINING | _SCHEDULED) | rates,
        "model": parameters.model.model_dump(mode="json", include={"attention"}),
        "seed": parameters.seed,
    }


def _relevant_to_scores(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    limits = {"context", "evaluation_items", "evaluation_windows"}
    return {"train": parameters.train.model_dump(mode="json", include=limits)}


def _relevant_to_all_scores(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {"train": {"context": parameters.train.context}}


@step(_relevant_to_start)
def initialise(
    corpus: TokenShards, project: Path, model: ModelParameters, train: TrainParameters, seed: int
) -> Callable[[Path], Any]:
    """Build the initial model, or take the user's checkpoint; refuse a corpus too small for the context."""
    from tikmix_pipeline.lm.checkpoint import Checkpoint, save_model
    from tikmix_pipeline.lm.model import build_model

    for domain in corpus.domains:
        for split in ("train", "heldout"):
            corpus.windows(domain, train.context, split)  # refused now if too short, not after a chunk
    if model.checkpoint:
        start = Checkpoint(project / model.checkpoint)
        start.require_tokenizer(corpus.tokenizer_digest)
        network = start.model(model)
    else:
        network = build_model(model, vocabulary_size=corpus.vocabulary_size, context=train.context, seed=seed)
    return partial(save_model, network, tokenizer=corpus.tokenizer_folder)


@step(_relevant_to_training)
def train_one_chunk(
    start: Checkpoint,
    mixture: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    rounds: int,
    seed: int,
    resume: ResumePoint,
) -> tuple[Table, Callable[[Path], Any]]:
    """Train the chunk that follows `start` under `mixture`; go on from the resume point if there is one.

    Several processes train from one resume point to another, which is then read as any other would be.
    """
    import pandas as pd

    from tikmix_pipeline.lm.checkpoint import save_checkpoint
    from tikmix_pipeline.lm.chunk import train_chunk
    from tikmix_pipeline.lm.schedule import Schedule

    schedule = Schedule.of(train, max(rounds, mixture["round"] + 1))
    description = f"Round {mixture['round']}: training"
    found = resume.find()
    if train.world_size > 1:
        from tikmix_pipeline.ranks.training import Training, train_on_ranks

        job = Training(start.folder, corpus.folder, mixture["weights"], model, train, schedule, seed, description)
        train_on_ranks(job, resume.folder, found, resume.save)
        found, train = resume.folder, train.model_copy(update={"device": "cpu"})
    state = train_chunk(
        start,
        corpus,
        mixture["weights"],
        model=model,
        train=train,
        schedule=schedule,
        seed=seed,
        resume=found,
        save=lambda under_way: resume.save(partial(save_checkpoint, under_way, tokenizer=corpus.tokenizer_folder)),
        description=description,
    )

    def write(folder: Path) -> None:
        save_checkpoint(state, folder, tokenizer=corpus.tokenizer_folder)
        resume.discard()

    return pd.DataFrame([dataclasses.asdict(record) for record in state.records]), write


def _relevant_to_stock(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {"train": {"tokens_per_chunk": parameters.train.tokens_per_chunk}}


@step(_relevant_to_stock)
def take_stock(
    checkpoint: Checkpoint, mixture: Mapping[str, Any], corpus: TokenShards, train: TrainParameters
) -> dict[str, Any]:
    """Say how much text there is and was read, what mixture is in force and how long the coming chunk is."""
    from tikmix_pipeline.mixture.records import TokenBudget

    available = {domain: corpus.tokens(domain) for domain in corpus.domains}
    return TokenBudget(
        round=mixture["round"],
        available=available,
        consumed=checkpoint.tokens_read(),
        chunk_tokens=train.tokens_per_chunk,
        current=mixture["weights"],
    ).to_json()


@step(_relevant_to_scores)
def evaluate(checkpoint: Checkpoint, corpus: TokenShards, model: ModelParameters, train: TrainParameters) -> Table:
    """Score the evaluation half of every task and the held-out slice of every domain, within the round's limits."""
    return _score(checkpoint, corpus, model, train, items=train.evaluation_items, windows=train.evaluation_windows)


@step(_relevant_to_all_scores)
def evaluate_fully(
    checkpoint: Checkpoint, corpus: TokenShards, model: ModelParameters, train: TrainParameters
) -> Table:
    """Score all evaluation items and all held-out text."""
    return _score(checkpoint, corpus, model, train, items=None, windows=None)


def _score(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    *,
    items: int | None,
    windows: int | None,
) -> Table:
    import pandas as pd

    from tikmix_pipeline.lm.evaluation import evaluation_texts, score

    texts = evaluation_texts(corpus, context=train.context, items=items, windows=windows)
    scores = score(checkpoint.model(model), texts, device=train.device)
    return pd.DataFrame(
        [(*key, value) for key, value in scores.items()], columns=["name", "kind", "measure", "bits_per_byte"]
    )
