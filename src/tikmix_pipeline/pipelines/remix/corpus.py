"""Nodes that read as much of a team's text as its measurement needs, by the checkpoint's own tokenizer."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tikmix_pipeline.files import sampled_signature
from tikmix_pipeline.parameters import (
    CorpusParameters,
    InfluenceParameters,
    ModelParameters,
    RunParameters,
    TrainParameters,
)
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import PreparedText


def _relevant_to_sample(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    from tikmix_pipeline.corpus.source_files import source_signatures

    del round_number
    sampled = _narrowed(parameters.corpus, parameters.influence, parameters.train)
    return {
        "corpus": sampled.model_dump(mode="json", exclude={"name", "tokenizer", "shard_megatokens"}),
        "files": source_signatures(sampled, root),
    }


def _relevant_to_tokens(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    from tikmix_pipeline.corpus.tokenizer import tokenizer_digest, tokenizer_files

    del round_number
    folder = root / tokenizer_folder(parameters.corpus, parameters.model)
    return {
        "corpus": parameters.corpus.model_dump(mode="json", include={"shard_megatokens"}),
        # of the next checkpoint of the run the files are others, and the tokenizer is the same
        "tokenizer": tokenizer_digest(folder) or sampled_signature(tokenizer_files(folder)),
    }


@step(_relevant_to_sample)
def sample_text(
    corpus: CorpusParameters, influence: InfluenceParameters, train: TrainParameters, project: Path, downloads: Path
) -> Callable[[Path], None]:
    """Read a sample of every domain that is large enough for the measurement, and prepare it as any corpus."""
    from tikmix_pipeline.corpus.build import prepare_text

    return prepare_text(_narrowed(corpus, influence, train), root=project, downloads=downloads).write


@step(_relevant_to_tokens)
def tokenize_sample(
    corpus: CorpusParameters, model: ModelParameters, text: PreparedText, project: Path
) -> Callable[[Path], Any]:
    """Write every domain and task as token ids of the checkpoint's tokenizer."""
    from tikmix_pipeline.corpus.build import write_corpus
    from tikmix_pipeline.corpus.tokenizer import load_tokenizer

    parameter = "corpus.tokenizer.path" if corpus.tokenizer.path else "model.checkpoint"
    tokenizer = load_tokenizer(project / tokenizer_folder(corpus, model), parameter)
    return partial(write_corpus, corpus, text, tokenizer, project)


def tokenizer_folder(corpus: CorpusParameters, model: ModelParameters) -> str:
    """Return the folder of the tokenizer: the checkpoint's, unless the user names another."""
    return corpus.tokenizer.path or model.checkpoint or ""


def _narrowed(corpus: CorpusParameters, influence: InfluenceParameters, train: TrainParameters) -> CorpusParameters:
    """Return the corpus with as much text of every domain as is measured, and no more."""
    from tikmix_pipeline.influence.samples import needed_megabytes

    needed = needed_megabytes(influence, train.context) / (1 - corpus.heldout_fraction)
    domains = {
        name: domain.model_copy(update={"max_megabytes": min(domain.max_megabytes, needed)})
        if domain.max_megabytes
        else domain
        for name, domain in corpus.domains.items()
    }
    return corpus.model_copy(update={"max_megabytes": needed, "domains": domains})
