"""`SurrogateDecision`: a mixture decided on a surrogate, what it was weighed against, and what to say of it.

Axes: T targets, K domains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import quoted
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.simplex import Box, FloatArray, by_name
from tikmix_pipeline.mixture.sweep.search import SearchResult

if TYPE_CHECKING:
    import pandas as pd

EDGE = 1e-6
"""A weight is at a bound, and a mixture is another one, within this."""
_BEYOND = 1e-3
"""A mixture that is further outside the box than this is predicted by extrapolation."""


@dataclass(frozen=True, eq=False)
class SurrogateDecision:
    """The mixture of the next chunk.

    Attributes:
        domains: names, in the order of axis K.
        targets: names, in the order of axis T.
        weights_K: the mixture.
        prior_K: the mixture it is compared with.
        reference_K: the mixture no target may do worse than: the prior, moved inside the bounds.
        expected_gain_T: how much lower each target's response is predicted to be than under the prior, in its unit.
        normalised_gain_T: P̂, which the objective is made of.
        objective: F, as predicted.
        terms: the parts of F without their weights.
        direct_K: D's mixture; None without one.
        direct_objective: F of it, as predicted.
        searched_K: the best mixture of the search, which is `weights_K` unless D's was kept.
        searched_objective: F of it, as predicted.
        additive_gain_T: `S (w − w_prior)`, where there is an influence matrix.
        kept: whose mixture it is.
        notes: what a reader should know, in sentences.
        search: how the search went.
    """

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weights_K: FloatArray
    prior_K: FloatArray
    reference_K: FloatArray
    expected_gain_T: FloatArray
    normalised_gain_T: FloatArray
    objective: float
    terms: dict[str, float]
    direct_K: FloatArray | None
    direct_objective: float | None
    searched_K: FloatArray
    searched_objective: float
    additive_gain_T: FloatArray | None
    kept: Literal["surrogate", "direct"]
    notes: tuple[str, ...]
    search: SearchResult

    def to_record(self, response: str, round_number: int) -> DecisionRecord:
        """Return what is recorded of it: everything but the search.

        Args:
            response: the kind that the surrogate was fitted on.
            round_number: the round that trains under the mixture.
        """
        return DecisionRecord(
            strategy="surrogate",
            response=response,
            round=round_number,
            weights=by_name(self.domains, self.weights_K),
            prior=by_name(self.domains, self.prior_K),
            reference=by_name(self.domains, self.reference_K),
            expected_gain=by_name(self.targets, self.expected_gain_T),
            normalised_gain=by_name(self.targets, self.normalised_gain_T),
            objective=self.objective,
            terms=self.terms,
            direct_weights=None if self.direct_K is None else by_name(self.domains, self.direct_K),
            direct_objective=self.direct_objective,
            searched_weights=by_name(self.domains, self.searched_K),
            searched_objective=self.searched_objective,
            additive_gain=None if self.additive_gain_T is None else by_name(self.targets, self.additive_gain_T),
            kept=self.kept,
            binding=(),
            notes=self.notes,
        )

    def trace_table(self) -> "pd.DataFrame":
        """Return a row per round of the search: how it went, and the weights of its centre."""
        import pandas as pd

        centres = (by_name(self.domains, centre_K) for centre_K in self.search.centres_RK)
        return pd.DataFrame([row | centre for row, centre in zip(self.search.trace, centres, strict=True)])


def out_of_reach_notes(targets: Sequence[str], out_of_reach_T: npt.NDArray[np.bool_]) -> Iterator[str]:
    """Say on which targets D's mixture does worse than the prior, so that others may too."""
    if out_of_reach_T.any():
        yield (
            "No mixture that was searched is predicted to do as well as the prior on every target. On "
            f"{_chosen(targets, out_of_reach_T)} D's mixture does worse too, and none may do worse than that. Widen "
            "the sweep (sweep.low, sweep.high, sweep.max_ratio) to look for one."
        )


def search_notes(found: SearchResult, direct_objective: float | None, *, is_no_better: bool) -> Iterator[str]:
    """Say where the search failed: to keep the Pareto constraint, to better D's mixture, or where it started from."""
    if found.excess > 0:
        kept = "the one that comes nearest is taken" if direct_objective is None else "D's mixture is kept"
        yield (
            "No mixture that was searched is predicted to do as well as the prior on every target, short by "
            f"{found.excess:.2g} in normalised gain, so {kept}. Widen the sweep (sweep.low, sweep.high, "
            "sweep.max_ratio), or set optimize.pareto to false."
        )
    elif is_no_better and direct_objective is not None:
        yield (
            "No mixture that was searched is predicted to be better than D's (objective "
            f"{found.value:.4g} against {direct_objective:.4g}), so D's mixture is kept."
        )
    elif found.value >= found.trace[0]["best"]:
        yield "The search found no mixture that is predicted to be better than the one it started from."


def box_notes(
    domains: Sequence[str],
    box: Box,
    weights_K: FloatArray,
    *,
    direct_K: FloatArray | None,
    predicted_prior_K: FloatArray | None,
) -> Iterator[str]:
    """Say which mixtures are outside what the candidates cover, or at its edge.

    Args:
        domains: names of axis K.
        box: what the candidates cover.
        weights_K: the best mixture of the search.
        direct_K: D's mixture; None without one.
        predicted_prior_K: the prior; None where its response is known.
    """
    low_K, high_K = box
    if predicted_prior_K is not None and (beyond_K := beyond(predicted_prior_K, box) > _BEYOND).any():
        yield (
            f"The prior is outside what the candidates cover on {_chosen(domains, beyond_K)}: what is predicted for "
            "it, and so the gain over it, is extrapolated."
        )
    if direct_K is not None and (beyond_K := beyond(direct_K, box) > _BEYOND).any():
        yield (
            f"D's mixture is outside what the candidates cover on {_chosen(domains, beyond_K)}: what is predicted for "
            "it, which the searched mixture is weighed against, is extrapolated."
        )
    at_low_K, at_high_K = (weights_K - low_K <= EDGE) & (low_K > 0), (high_K - weights_K <= EDGE) & (high_K < 1)
    at_edge_K = (at_low_K | at_high_K) & (high_K - low_K > EDGE)
    if at_edge_K.any():
        yield (
            "The searched mixture is at the edge of what the candidates cover on "
            f"{_chosen(domains, at_edge_K)}: a wider sweep might find a better one."
        )


def left_out_notes(targets: Sequence[str], counts_T: npt.NDArray[np.bool_]) -> Iterator[str]:
    """Say which targets are no part of the objective."""
    if not counts_T.all():
        yield f"Nothing tells the candidates apart on {_chosen(targets, ~counts_T)}: left out of the objective."


def beyond(weights_K: FloatArray, box: Box) -> FloatArray:
    """Return how far each weight is outside the box."""
    beyond_K: FloatArray = np.maximum(np.maximum(box[0] - weights_K, weights_K - box[1]), 0)
    return beyond_K


def _chosen(names: Sequence[str], chosen: npt.NDArray[np.bool_]) -> str:
    return quoted([name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen])
