"""`optimize`: TiKMiX-D, from the influence of the rounds so far to the next mixture."""

from tikmix_pipeline.pipelines.optimize.pipeline import create_pipeline as create_pipeline
