"""Nodes of the `train_chunk` pipeline."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.paths import ResumePoint
from tikmix_pipeline.files import stat_signature
from tikmix_pipeline.parameters import ModelParameters, RunParameters, TrainParameters
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Checkpoint, Table, TokenShards

_TRAINED_BY = ("corpus.stream", "corpus.shares", "corpus.windows", "lm")
_SCHEDULED = {"warmup_tokens", "decay_tokens", "final_learning_rate_fraction"}
_NOT_OF_TRAINING = {"save_every_steps", "evaluation_items", "evaluation_windows", "device"}


def _relevant_to_start(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number
    checkpoint = parameters.model.checkpoint
    files = sorted((root / checkpoint).glob("*.safetensors")) if checkpoint else []
    return {
        "model": parameters.model.model_dump(mode="json"),
        "train": parameters.train.model_dump(mode="json", include={"context"}),
        "seed": parameters.seed,
        "files": stat_signature(files),
    }


def _relevant_to_training(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    from tikmix_pipeline.lm.schedule import Schedule

    del root
    schedule = Schedule.of(parameters.train, max(parameters.tikmix.rounds, round_number + 1))
    first = round_number * schedule.chunk_steps
    factors = [schedule.factor(number) for number in range(first, first + schedule.chunk_steps)]
    return {
        "train": parameters.train.model_dump(mode="json", exclude=_NOT_OF_TRAINING | _SCHEDULED),
        "learning_rate_factors": [[number, factor] for number, factor in _changes(factors)],
        "attention": parameters.model.attention,
        "seed": parameters.seed,
    }


def _changes(values: list[float]) -> list[tuple[int, float]]:
    """Return the positions at which a value differs from the one before, with the value."""
    return [(i, value) for i, value in enumerate(values) if i == 0 or value != values[i - 1]]


def _relevant_to_scores(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    limits = {"context", "evaluation_items", "evaluation_windows"}
    return {"train": parameters.train.model_dump(mode="json", include=limits)}


@step(code=("lm.model", "lm.presets"), relevant=_relevant_to_start)
def initialise(
    corpus: TokenShards, project: Path, model: ModelParameters, train: TrainParameters, seed: int
) -> Callable[[Path], Any]:
    """Build the initial model, or take the user's checkpoint."""
    from tikmix_pipeline.lm.checkpoint import Checkpoint, save_model
    from tikmix_pipeline.lm.model import build_model

    if model.checkpoint:
        start = Checkpoint(project / model.checkpoint)
        network = start.model(model)
        start.require_tokenizer(corpus.tokenizer_digest)
    else:
        network = build_model(model, vocabulary_size=corpus.vocabulary_size, context=train.context, seed=seed)
    return partial(save_model, network, tokenizer=corpus.tokenizer_folder)


@step(code=_TRAINED_BY, relevant=_relevant_to_training)
def train_one_chunk(
    start: Checkpoint,
    mixture: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    rounds: int,
    seed: int,
    resume: ResumePoint,
) -> tuple[Callable[[Path], Any], Table]:
    """Train the chunk that follows `start` under `mixture`; go on from the resume point if there is one."""
    import pandas as pd

    from tikmix_pipeline.lm.checkpoint import save_checkpoint
    from tikmix_pipeline.lm.chunk import train_chunk
    from tikmix_pipeline.lm.schedule import Schedule

    state = train_chunk(
        start,
        corpus,
        mixture["weights"],
        model=model,
        train=train,
        schedule=Schedule.of(train, max(rounds, mixture["round"] + 1)),
        seed=seed,
        resume=resume.find(),
        save=lambda under_way: resume.save(partial(save_checkpoint, under_way, tokenizer=corpus.tokenizer_folder)),
        description=f"Round {mixture['round']}: training",
    )

    def write(folder: Path) -> None:
        save_checkpoint(state, folder, tokenizer=corpus.tokenizer_folder)
        resume.discard()

    return write, pd.DataFrame([dataclasses.asdict(record) for record in state.records])


@step(code=("lm.evaluation", "lm.loss"), relevant=_relevant_to_scores)
def evaluate(checkpoint: Checkpoint, corpus: TokenShards, model: ModelParameters, train: TrainParameters) -> Table:
    """Score the evaluation half of every task and the held-out slice of every domain, within the round's limits."""
    return _score(checkpoint, corpus, model, train, items=train.evaluation_items, windows=train.evaluation_windows)


@step(code=("lm.evaluation", "lm.loss"), relevant=_relevant_to_scores)
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
