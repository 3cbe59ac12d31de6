"""Wiring of the `corpus` pipeline."""

from typing import Any

from kedro.pipeline import Pipeline

from tikmix_pipeline.files import folder_signature
from tikmix_pipeline.parameters import CorpusParameters
from tikmix_pipeline.parameters.base import OnDisk
from tikmix_pipeline.parameters.corpus import CapParameters, HeldoutParameters, ShardParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.corpus.nodes import ShardView, TextView, prepare, tokenize
from tikmix_pipeline.run import Run, current_run


def create_pipeline(**_: Any) -> Pipeline:
    """Sources to text, text to token shards."""
    return corpus_of(current_run())


def corpus_of(run: Run) -> Pipeline:
    """Sources to text, text to token shards."""
    parameters, tokenizer = run.parameters, run.parameters.corpus.tokenizer.path
    text = TextView.of(parameters, files=OnDisk(lambda: source_files(run, parameters.corpus)))
    own = OnDisk(lambda: folder_signature(run.root / tokenizer) if tokenizer else [])
    shards = ShardView.of(parameters, corpus=_of_shards(parameters.corpus), files=own)
    return Pipeline(
        [
            cached_node(prepare, text, ["project", "downloads"], "text", name="prepare_text"),
            cached_node(tokenize, shards, ["text", "project"], "corpus", name="tokenize_corpus"),
        ]
    )


def _of_shards(corpus: CorpusParameters) -> ShardParameters:
    """Return what token shards depend on: of caps and held-out text only where sources are token ids already."""
    shards = corpus.narrowed(ShardParameters)
    if any(source.kind == "shards" for domain in corpus.domains.values() for source in domain.sources):
        return shards
    return shards.without(CapParameters).without(HeldoutParameters)


def source_files(run: Run, corpus: CorpusParameters) -> Any:
    """Return what tells the files of a corpus from others.

    Raises:
        TikmixError: a source is not there.
    """
    from tikmix_pipeline.corpus.sources import source_signatures

    return source_signatures(corpus, run.root)
