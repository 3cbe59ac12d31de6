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
from tikmix_pipeline.mixture.sweep.evidence import Evidence, evidence_of
from tikmix_pipeline.mixture.sweep.response_process import ResponseProcesses
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
    evidence: Evidence | None = None
    """What branches from elsewhere say."""

    def processes(self) -> ResponseProcesses:
        """Return processes around it, to be fitted."""
        return ResponseProcesses(self.influence_TK, self.curved_KK, self.reference_K, self.saturation, self.evidence)

    @classmethod
    def of(
        cls,
        direct: DecisionRecord,
        influences: Sequence["pd.DataFrame"],
        products: Sequence["pd.DataFrame"],
        domains: Sequence[str],
        targets: Sequence[str],
        averaging: AveragingParameters,
        evidence: "pd.DataFrame | None" = None,
    ) -> "ResponseMean":
        """Return what D decided by.

        Args:
            direct: D's decision, of second order.
            influences: `influence.parquet` of the rounds so far, oldest first.
            products: `domain_products.parquet` likewise.
            domains, targets: in the order of the axes K and T.
            averaging: on which rounds D decided.
            evidence: branches from elsewhere (`evidence.evidence_table`).

        Raises:
            TikmixError: as `averaged_measurement`, or as `Evidence.of`.
            ValueError: D's decision is not of second order.
        """
        record, prior = direct.second_order, direct.prior
        if record is None or prior is None:
            raise ValueError("a surrogate around the response model needs a decision of second order")
        prior_K = np.array([prior[domain] for domain in domains], dtype=np.float64)
        averaged, together = averaged_measurement(influences, products, domains, averaging, prior_K)
        rows = [list(averaged.tasks).index(target) for target in targets]
        elsewhere = None if evidence is None else evidence_of(evidence, domains, targets)
        return cls(averaged.contrast_TK[rows], together.curved_KK, prior_K, float(record.saturation), elsewhere)
