"""D's guardrails in TiKMiX-M's search: what the response model, not the surrogate, says of text that nobody scored.

A surrogate predicts tasks. Of held-out text it knows nothing, so a mixture that it likes is held to the guardrails by
the gains of second order that D is held by: with the same rows, tolerances, saturation and Q.

Axes: N mixtures, C guardrails, K domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.mixture.guardrail_words import guardrail_sentences
from tikmix_pipeline.mixture.guardrails import guardrail_constraints
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.records import ByDomain, DecisionRecord, SecondOrderRecord
from tikmix_pipeline.mixture.second_order import averaged_measurement, second_order_gains
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.decision import AveragingParameters

if TYPE_CHECKING:
    import pandas as pd

_TOLERANCE = 1e-6
"""By so much a guardrail may be missed, as a share of the largest influence on the mean of the tasks: more than the
solver of D's mixture misses it by."""


@dataclass(frozen=True, eq=False)
class SearchGuard:
    """The guardrails of D's decision, for any mixture."""

    record: SecondOrderRecord
    """D's, with what each guardrail asks."""
    rows_CK: FloatArray
    """The influence of the domains on each guarded text."""
    mean_K: FloatArray
    """And on the mean of the tasks."""
    curved_KK: FloatArray
    """Q."""
    constraints: LeastGains
    prior_K: FloatArray
    """What gains are told over."""

    @property
    def names(self) -> list[str]:
        """Names of the guarded texts, in the order of axis C."""
        return [guarded.name for guarded in self.record.guardrails]

    def shortfall(self, weights_NK: FloatArray) -> FloatArray:
        """Return by how much mixtures miss their guardrails, all together, (N,); 0 of one that keeps them."""
        short_NC = -self.constraints.room(weights_NK)
        short_N: FloatArray = np.where(short_NC > _TOLERANCE, short_NC, 0).sum(axis=1)
        return short_N

    def broken(self, weights_K: FloatArray) -> list[str]:
        """Return whose guardrails a mixture misses."""
        room_C = self.constraints.room(weights_K[None])[0]
        return [name for name, room in zip(self.names, room_C.tolist(), strict=True) if room < -_TOLERANCE]

    def sentences(self, weights_K: FloatArray) -> tuple[str, ...]:
        """Say what guarded text is expected to pay under a mixture, beside the best of D's without guardrails."""
        gains_C, mean_gain = self._gains(weights_K)
        guarded = tuple(
            one.model_copy(update={"gain": gain})
            for one, gain in zip(self.record.guardrails, gains_C.tolist(), strict=True)
        )
        told = self.record.model_copy(update={"guardrails": guarded, "mean_gain": mean_gain})
        return tuple(guardrail_sentences(told))

    def _gains(self, weights_K: FloatArray) -> tuple[FloatArray, float]:
        """Return what each text gains over the prior, and what the tasks do, in the units of S."""
        rows_CK, r = np.vstack([self.rows_CK, self.mean_K]), float(self.record.saturation)
        gain_C = second_order_gains(rows_CK, self.curved_KK, r, weights_K[None], self.prior_K)[0]
        return gain_C[:-1], float(gain_C[-1])


def search_guard(
    direct: DecisionRecord,
    influences: Sequence["pd.DataFrame"],
    products: Sequence["pd.DataFrame"],
    domains: Sequence[str],
    averaging: AveragingParameters,
) -> SearchGuard | None:
    """Return the guardrails that D's decision was held by; None where it was held by none.

    Args:
        direct: D's decision.
        influences: `influence.parquet` of the rounds so far, oldest first.
        products: `domain_products.parquet` likewise, as D had them.
        domains: in the order of axis K.
        averaging: on which rounds D decided.

    Raises:
        TikmixError: as `averaged_measurement`.
    """
    record = direct.second_order
    if record is None or not record.guardrails or not products:
        return None
    prior_K, reference_K, mean_K = (
        _in_order(named, domains) for named in (direct.prior or {}, direct.reference or {}, record.mean_influence)
    )
    rows_CK = np.stack([_in_order(guarded.influence, domains) for guarded in record.guardrails])
    _, together = averaged_measurement(influences, products, domains, averaging, prior_K)
    constraints = guardrail_constraints(
        rows_CK,
        np.array([guarded.share for guarded in record.guardrails], dtype=np.float64),
        np.array([guarded.slack for guarded in record.guardrails], dtype=np.float64),
        mean_K=mean_K,
        reference_K=reference_K,
        saturation=float(record.saturation),
        curved_KK=together.curved_KK,
    )
    return SearchGuard(record, rows_CK, mean_K, together.curved_KK, constraints, prior_K)


def _in_order(named: ByDomain, domains: Sequence[str]) -> FloatArray:
    return np.array([named[domain] for domain in domains], dtype=np.float64)
