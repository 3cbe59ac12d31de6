"""`tikmix`: N rounds of training, measuring and deciding in one DAG, then the final evaluation."""

from tikmix_pipeline.pipelines.tikmix.pipeline import create_pipeline as create_pipeline
