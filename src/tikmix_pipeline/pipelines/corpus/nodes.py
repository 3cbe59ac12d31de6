"""Nodes of the `corpus` pipeline."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tikmix_pipeline.files import folder_signature
from tikmix_pipeline.parameters import CorpusParameters, RunParameters
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import PreparedText

_OF_SHARDS = {"tokenizer", "shard_megatokens"}


def _relevant_to_text(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    from tikmix_pipeline.corpus.source_files import source_signatures

    del round_number
    return {
        "corpus": parameters.corpus.model_dump(mode="json", exclude={"name", "tokenizer", "shard_megatokens"}),
        "files": source_signatures(parameters.corpus, root),
    }


def _relevant_to_shards(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number
    tokenizer = parameters.corpus.tokenizer.path
    return {
        "corpus": parameters.corpus.model_dump(mode="json", include=_OF_SHARDS),
        "files": folder_signature(root / tokenizer) if tokenizer else [],
    }


@step(_relevant_to_text)
def prepare(corpus: CorpusParameters, project: Path, downloads: Path) -> Callable[[Path], None]:
    """Fetch or read the sources, remove duplicates and evaluation text, and split by document."""
    from tikmix_pipeline.corpus.build import prepare_text

    return prepare_text(corpus, root=project, downloads=downloads).write


@step(_relevant_to_shards)
def tokenize(corpus: CorpusParameters, text: PreparedText, project: Path) -> Callable[[Path], Any]:
    """Train or load the tokenizer and write every domain and task as token ids."""
    from tikmix_pipeline.corpus.build import build_tokenizer, write_corpus

    tokenizer = build_tokenizer(corpus.tokenizer, text, root=project)
    return partial(write_corpus, corpus, text, tokenizer, project)
