"""Names of types from heavy libraries, for annotations that Kedro evaluates: they cost no import at run time."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tikmix_pipeline.corpus.prepared import PreparedText
    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.influence.curvature.factors import Factors
    from tikmix_pipeline.influence.samples import MeasuredText
    from tikmix_pipeline.influence.store import GradientStore
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.mixture.bounds import Bounds

    Table = pd.DataFrame
else:
    Bounds = Checkpoint = Factors = Figure = GradientStore = MeasuredText = PreparedText = Any
    Table = TokenShards = Any

Surrogate = Any
"""An estimator of scikit-learn's kind: `fit(weights_NK, response_NT)` and `predict(weights_NK)`."""

__all__ = [
    "Bounds",
    "Checkpoint",
    "Factors",
    "Figure",
    "GradientStore",
    "MeasuredText",
    "PreparedText",
    "Surrogate",
    "Table",
    "TokenShards",
]
