"""Gains to second order: what a chunk under a mixture does, when what one domain gives leaves less for the next.

    gain_t(w) = c₁ [S_t·(w − w_ref) − r/2 (wᵀQw − w_refᵀQ w_ref)]

S_t is the influence of the domains on the task t, and `Q = Gᵀ f(C) C f(C) G` their curvature (`influence.
between_domains`): the loss is quadratic along the step `−f(C) G w` that a mixture takes, and bends back by ½ wᵀQw.
For a small step S alone would do; over a chunk the step is not small, and `S w` promises all to one domain. r, the
saturation, says how large the step really is beside the one that f(C) takes: 1 if the chunk ends where a damped
Newton step does. c₁ turns the unit of S into nats, and is in no decision.

Held-out text of a domain gains in the same way, from `D[j, k]`, the influence of domain k on the text of domain j, in
the place of S. As Q has no negative eigenvalue, every gain is concave.

Axes: N mixtures, T targets, K domains, R rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.influence_matrix import AveragedContrasts, average_contrasts
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.decision import AveragingParameters

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class DomainProducts:
    """What a round, or the mean of several, measured of the domains among themselves, in the units of S."""

    heldout_KK: FloatArray
    """D: what more of the domain of the column does for text of the domain of the row."""
    curved_KK: FloatArray
    """Q, symmetric and without negative eigenvalues."""
    heldout_stderr_KK: FloatArray | None = None
    """The standard errors of D, the rounds' taken to be independent; None where they are not known."""

    @classmethod
    def averaged(
        cls, tables: Sequence["pd.DataFrame"], domains: Sequence[str], share_R: FloatArray
    ) -> "DomainProducts":
        """Return the mean over the rounds of `domain_products.parquet`, oldest first, in the units of the last.

        Gradients shrink as training goes on, so every round's products are brought to the last one's trace of Q.

        Args:
            share_R: the say of each round, which sum to 1 (`influence_matrix.average_contrasts`).

        Raises:
            TikmixError: a table has no row of one of the domains, or a product is not a finite number.
        """
        heldout_RKK, curved_RKK = (
            np.stack([_matrix(table, domains, values) for table in tables]) for values in ("influence", "curved")
        )
        trace_R = np.einsum("rkk->r", curved_RKK)
        weight_R = share_R * np.where(trace_R > 0, trace_R[-1] / np.where(trace_R > 0, trace_R, 1.0), 1.0)
        stderr_KK = None
        if all("stderr" in table for table in tables):
            errors_RKK = np.stack([_wide(table, domains, "stderr") for table in tables])
            stderr_KK = np.sqrt(np.tensordot(weight_R**2, errors_RKK**2, 1))
        return cls(np.tensordot(weight_R, heldout_RKK, 1), np.tensordot(weight_R, curved_RKK, 1), stderr_KK)


def _matrix(table: "pd.DataFrame", domains: Sequence[str], values: str) -> FloatArray:
    missing = [domain for domain in domains if domain not in set(table["domain"])]
    if missing:
        raise TikmixError(
            f"The products between domains lack '{missing[0]}': they were measured with other domains. Delete "
            "domain_products.parquet of that round and measure it again."
        )
    found = _wide(table, domains, values)
    if not np.isfinite(found).all():
        raise TikmixError(
            "A product between domains is not a finite number: the checkpoint's loss or gradient is not finite there. "
            "Lower train.learning_rate or raise influence.damping, and measure again."
        )
    return found


def _wide(table: "pd.DataFrame", domains: Sequence[str], values: str) -> FloatArray:
    wide = table.pivot(index="text", columns="domain", values=values).loc[[*domains], [*domains]]
    found: FloatArray = wide.to_numpy(dtype="float64")
    return found


def averaged_measurement(
    influences: Sequence["pd.DataFrame"],
    products: Sequence["pd.DataFrame"],
    domains: Sequence[str],
    averaging: AveragingParameters,
    reference_K: FloatArray,
) -> tuple[AveragedContrasts, DomainProducts]:
    """Return what a decision of second order rests on, from the tables of the rounds so far, oldest first.

    Raises:
        TikmixError: as `average_contrasts` and `DomainProducts.averaged`.
    """
    averaged = average_contrasts(influences, domains, averaging, reference_K)
    counted = products[-len(averaged.share_R) :]
    return averaged, DomainProducts.averaged(counted, domains, averaged.share_R)


def bend(weights_NK: FloatArray, reference_K: FloatArray, curved_KK: FloatArray) -> FloatArray:
    """Return `½ (wᵀQw − w_refᵀQ w_ref)` of mixtures, (N,)."""
    # as a product, which is exactly nothing at the reference
    bent_N: FloatArray = np.einsum("nk,kj,nj->n", weights_NK - reference_K, curved_KK, weights_NK + reference_K) / 2
    return bent_N


def second_order_gains(
    rows_TK: FloatArray, curved_KK: FloatArray, saturation: float, weights_NK: FloatArray, reference_K: FloatArray
) -> FloatArray:
    """Return `gain_t(w) / c₁` of mixtures over a reference, (N, T); the rows are those of S or of D."""
    linear_NT = (weights_NK - reference_K) @ rows_TK.T
    gain_NT: FloatArray = linear_NT - saturation * bend(weights_NK, reference_K, curved_KK)[:, None]
    return gain_NT
