"""`train_chunk`: train one chunk under a mixture from a checkpoint, with exact resume, and score the result."""

from tikmix_pipeline.pipelines.train_chunk.pipeline import create_pipeline as create_pipeline
