"""Wiring of the `corpus` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.corpus.nodes import prepare, tokenize


def create_pipeline(**_: Any) -> Pipeline:
    """Sources to text, text to token shards."""
    return Pipeline(
        [
            Node(prepare, ["params:corpus", "project", "downloads"], "text", name="prepare_text"),
            Node(tokenize, ["params:corpus", "text", "project"], "corpus", name="tokenize_corpus"),
        ]
    )
