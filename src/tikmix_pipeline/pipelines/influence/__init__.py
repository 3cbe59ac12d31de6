"""`influence`: the Group Influence of every domain on every task at a checkpoint."""

from tikmix_pipeline.pipelines.influence.pipeline import create_pipeline

__all__ = ["create_pipeline"]
