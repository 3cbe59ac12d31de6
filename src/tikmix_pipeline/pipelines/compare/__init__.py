"""`compare`: several ways of mixing, trained on the same budget from the same start, and one table."""

from tikmix_pipeline.pipelines.compare.pipeline import create_pipeline as create_pipeline
