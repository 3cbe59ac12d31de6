"""`influence`: the Group Influence of every domain on every task at a checkpoint."""

from tikmix_pipeline.pipelines.influence.pipeline import create_pipeline as create_pipeline
