"""`validate`: does influence predict? Branches of training, one per domain, against what each curvature predicts."""

from tikmix_pipeline.pipelines.validate.pipeline import create_pipeline as create_pipeline
