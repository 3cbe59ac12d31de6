"""What influence tells of branches before any is trained: the mean of the surrogate `response`.

Axes: T targets, K domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.second_order import averaged_measurement
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.decision import AveragingParameters

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ResponseMean:
    """The response model of a decision of second order, without its scale in nats."""

    influence_TK: FloatArray
    """Of the domains on the targets, as contrasts against the prior."""
    curved_KK: FloatArray
    reference_K: FloatArray
    saturation: float

    @classmethod
    def of(
        cls,
        direct: DecisionRecord,
        influences: Sequence["pd.DataFrame"],
        products: Sequence["pd.DataFrame"],
        domains: Sequence[str],
        targets: Sequence[str],
        averaging: AveragingParameters,
    ) -> "ResponseMean":
        """Return what D decided by.

        Args:
            direct: D's decision, of second order.
            influences: `influence.parquet` of the rounds so far, oldest first.
            products: `domain_products.parquet` likewise.
            domains, targets: in the order of the axes K and T.
            averaging: on which rounds D decided.

        Raises:
            TikmixError: as `averaged_measurement`.
            ValueError: D's decision is not of second order.
        """
        record, prior = direct.second_order, direct.prior
        if record is None or prior is None:
            raise ValueError("a surrogate around the response model needs a decision of second order")
        prior_K = np.array([prior[domain] for domain in domains], dtype=np.float64)
        averaged, together = averaged_measurement(influences, products, domains, averaging, prior_K)
        rows = [list(averaged.tasks).index(target) for target in targets]
        return cls(averaged.contrast_TK[rows], together.curved_KK, prior_K, float(record.saturation))
