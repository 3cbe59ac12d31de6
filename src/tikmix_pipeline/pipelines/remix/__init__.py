"""`remix`: the next mixture for a checkpoint that was trained elsewhere, measured on samples of its domains."""

from tikmix_pipeline.pipelines.remix.pipeline import create_pipeline as create_pipeline
