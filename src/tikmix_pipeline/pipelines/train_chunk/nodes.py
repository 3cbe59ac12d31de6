"""Nodes of the `train_chunk` pipeline."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import partial
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture import recording
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.base import OnDisk, View, unrecorded
from tikmix_pipeline.parameters.decision import PriorParameters, RoundingParameters
from tikmix_pipeline.parameters.training import (
    ContextParameters,
    EvaluationParameters,
    FinalEvaluationParameters,
    LoadParameters,
    ModelParameters,
    StepParameters,
)

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.evaluation import Key

_LOG = logging.getLogger(__name__)
_KEY = ("name", "kind", "measure")


class InitialView(View):
    """What the initial model depends on; the files are those of the user's checkpoint."""

    model: ModelParameters
    train: ContextParameters
    seed: int
    files: OnDisk


class PriorView(View):
    """What mixture 0 depends on."""

    tikmix: PriorParameters
    reweight: RoundingParameters
    chunk_tokens: int


class ChunkView(View):
    """What a chunk of training depends on: the ends of the schedule matter only to the chunks that they reach into."""

    model: LoadParameters
    train: StepParameters
    schedule: Schedule
    seed: int


class KeptChunkView(ChunkView):
    """What a chunk depends on that is trained had the prior been kept."""

    number: int = unrecorded()


class BudgetView(View):
    """How long the coming chunk is, and all that is planned from there on, if anything is."""

    chunk_tokens: int
    remaining_tokens: int | None


class EvaluationView(View):
    """What scores after a round depend on."""

    model: LoadParameters
    train: EvaluationParameters


class FinalEvaluationView(View):
    """What scores after the last round depend on."""

    model: LoadParameters
    train: FinalEvaluationParameters


def initialise_model(view: InitialView, corpus: TokenShards, project: Path) -> Callable[[Path], Any]:
    """Build the initial model, or take the user's checkpoint; refuse a corpus too small for the context."""
    from tikmix_pipeline.lm.checkpoint import initial_model, save_model

    network = initial_model(corpus, view.model, context=view.train.context, seed=view.seed, root=project)
    return partial(save_model, network, tokenizer=corpus.tokenizer_folder)


def record_prior(view: PriorView, corpus: TokenShards) -> tuple[MixtureRecord, pd.DataFrame]:
    """Record mixture 0, the prior."""
    record = recording.record_prior(
        {domain: corpus.tokens(domain) for domain in corpus.domains},
        prior=view.tikmix,
        rounding=view.reweight,
        chunk_tokens=view.chunk_tokens,
    )
    return record, recording.mixture_table(record)


def train_one_chunk(
    view: ChunkView, start: Checkpoint, mixture: MixtureRecord, corpus: TokenShards, resume: WorkFolder
) -> tuple[pd.DataFrame, Callable[[Path], Any]]:
    """Train the chunk that follows `start` under `mixture`; go on from the resume point if there is one."""
    return _train(view, start, mixture.weights, corpus, resume, "training")


def train_kept_chunk(
    view: KeptChunkView, start: Checkpoint, prior: MixtureRecord, corpus: TokenShards, resume: WorkFolder
) -> tuple[pd.DataFrame, Callable[[Path], Any]]:
    """Train the same chunk as the run's own would be, had the prior been kept."""
    _LOG.info("For the verdict round %d is trained on the prior as well (tikmix.verdict)", view.number)
    return _train(view, start, prior.weights, corpus, resume, "training on the prior")


def _train(
    view: ChunkView,
    start: Checkpoint,
    weights: Mapping[str, float],
    corpus: TokenShards,
    resume: WorkFolder,
    description: str,
) -> tuple[pd.DataFrame, Callable[[Path], Any]]:
    import pandas as pd

    from tikmix_pipeline.lm.checkpoint import save_checkpoint
    from tikmix_pipeline.lm.chunk import train_chunk

    state = train_chunk(
        start,
        corpus,
        weights,
        model=view.model,
        train=view.train,
        schedule=view.schedule,
        seed=view.seed,
        resume=resume,
        description=description,
    )

    def write(folder: Path) -> None:
        save_checkpoint(state, folder, tokenizer=corpus.tokenizer_folder)
        resume.discard()

    return pd.DataFrame([dataclasses.asdict(record) for record in state.records]), write


def count_tokens(view: BudgetView, checkpoint: Checkpoint, mixture: MixtureRecord, corpus: TokenShards) -> TokenBudget:
    """Say how much text there is and was read, what the current mixture is and how much is still to be trained."""
    return TokenBudget(
        round=mixture.round,
        available={domain: corpus.tokens(domain) for domain in corpus.domains},
        consumed=checkpoint.tokens_read(),
        chunk_tokens=view.chunk_tokens,
        remaining_tokens=view.remaining_tokens,
        current=mixture.weights,
    )


def evaluate(view: EvaluationView, checkpoint: Checkpoint, corpus: TokenShards) -> pd.DataFrame:
    """Score the evaluation half of every task and the held-out slice of every domain, within the round's limits."""
    from tikmix_pipeline.lm.evaluation import evaluation_texts, score

    limits = {"items": view.train.evaluation_items, "windows": view.train.evaluation_windows}
    texts = evaluation_texts(corpus, context=view.train.context, **limits)
    return _score_table(score(checkpoint.model(view.model), texts, device=view.train.device))


def evaluate_by_item(
    view: FinalEvaluationView, checkpoint: Checkpoint, corpus: TokenShards
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the last round's checkpoint, on all items and windows or within its limits; say what each has of it.

    Returns:
        Columns `name, kind, measure, bits_per_byte, nats_per_item`, the last of the measure `choice` alone; columns
        `name, kind, measure, item, nats, bytes` of all other measures.
    """
    import pandas as pd

    from tikmix_pipeline.lm.evaluation import evaluation_texts, score_items

    limits = {"items": view.train.final_items, "windows": view.train.final_windows}
    texts = evaluation_texts(corpus, context=view.train.context, **limits)
    scores = score_items(checkpoint.model(view.model), texts, device=view.train.device)
    rows = [
        pd.DataFrame(dict(zip(_KEY, key, strict=True)) | {"nats": found.nats_I, "bytes": found.bytes_I})
        for key, found in scores.items()
        if found.bytes_I is not None
    ]
    items = pd.concat(rows)
    items.insert(len(_KEY), "item", items.index)
    return _score_table({key: found.value for key, found in scores.items()}), items


def _score_table(scores: Mapping[Key, float]) -> pd.DataFrame:
    import pandas as pd

    rows = [(*key, nan, value) if key[2] == "choice" else (*key, value, nan) for key, value in scores.items()]
    return pd.DataFrame(rows, columns=[*_KEY, "bits_per_byte", "nats_per_item"])
