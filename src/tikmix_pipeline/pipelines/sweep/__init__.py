"""`sweep`: TiKMiX-M, from candidate mixtures and a measured response of each to a mixture."""

from tikmix_pipeline.pipelines.sweep.pipeline import create_pipeline as create_pipeline
