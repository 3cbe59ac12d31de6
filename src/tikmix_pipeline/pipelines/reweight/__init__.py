"""`reweight`: record a decided mixture in the catalog of mixtures and write it for the next round."""

from tikmix_pipeline.pipelines.reweight.pipeline import create_pipeline as create_pipeline
