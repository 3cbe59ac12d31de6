"""`corpus`: fetch or read text, split it by document, train the tokenizer if none is given, write token shards."""

from tikmix_pipeline.pipelines.corpus.pipeline import create_pipeline as create_pipeline
