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
from tikmix_pipeline.mixture.own_share import TextGain
from tikmix_pipeline.mixture.records import ByDomain, DecisionRecord, GuardrailRecord, SecondOrderRecord
from tikmix_pipeline.mixture.second_order import averaged_measurement
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
    gains: Sequence[TextGain]
    """Of each guarded text."""
    mean_K: FloatArray
    """The influence of the domains on the mean of the tasks."""
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
        guarded = tuple(
            one.model_copy(update={"gain": self._over_prior(gain, weights_K)})
            for one, gain in zip(self.record.guardrails, self.gains, strict=True)
        )
        of_tasks = self._over_prior(TextGain.second_order(self.mean_K), weights_K)
        told = self.record.model_copy(update={"guardrails": guarded, "mean_gain": of_tasks})
        return tuple(guardrail_sentences(told))

    def _over_prior(self, gain: TextGain, weights_K: FloatArray) -> float:
        return gain.over(weights_K, self.prior_K, float(self.record.saturation), self.curved_KK)


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
    gains = [_gain_of(guarded, domains, prior_K) for guarded in record.guardrails]
    _, together = averaged_measurement(influences, products, domains, averaging, prior_K)
    constraints = guardrail_constraints(
        gains,
        np.array([guarded.share for guarded in record.guardrails], dtype=np.float64),
        np.array([guarded.slack for guarded in record.guardrails], dtype=np.float64),
        mean_K=mean_K,
        reference_K=reference_K,
        saturation=float(record.saturation),
        curved_KK=together.curved_KK,
    )
    return SearchGuard(record, gains, mean_K, together.curved_KK, constraints, prior_K)


def _gain_of(guarded: GuardrailRecord, domains: Sequence[str], prior_K: FloatArray) -> TextGain:
    row_K = _in_order(guarded.influence, domains)
    if guarded.logarithm is None:
        return TextGain.second_order(row_K)
    return TextGain.logarithm(row_K, _in_order(guarded.logarithm, domains), prior_K)


def _in_order(named: ByDomain, domains: Sequence[str]) -> FloatArray:
    return np.array([named[domain] for domain in domains], dtype=np.float64)
