"""`SurrogateDecision`: a mixture decided on a surrogate, what it was weighed against, and what to say of it.

Axes: T targets, K domains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import quoted
from tikmix_pipeline.mixture.decision import DecidedMixture
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.simplex import Box, FloatArray, by_name
from tikmix_pipeline.mixture.sweep.search import SearchResult

if TYPE_CHECKING:
    import pandas as pd

EDGE = 1e-6
"""A weight is at a bound, and a mixture is another one, within this."""
_BEYOND = 1e-3
"""A mixture that is further outside the box than this is predicted by extrapolation."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SurrogateDecision(DecidedMixture):
    """TiKMiX-M's mixture; all gains and objectives are as predicted."""

    direct_K: FloatArray | None
    """D's mixture; None without one."""
    direct_objective: float | None
    additive_gain_T: FloatArray | None
    """`S (w − w_prior)`, where there is an influence matrix."""
    kept: Literal["surrogate", "direct"]
    """Whose mixture it is."""
    search: SearchResult
    """How the search went; its best mixture is the decided one unless D's was kept."""

    def to_record(self, response: str, round_number: int) -> DecisionRecord:
        """Return what is recorded of it: everything but how the search went; `response` is what it was fitted on.

        Gains of another response than influence are in its own unit, so that no scale of S is theirs.
        """
        own = self if response == "influence" else replace(self, gain_scale_T=None)
        return own.record_of(
            "surrogate",
            round_number,
            response=response,
            direct_weights=None if self.direct_K is None else by_name(self.domains, self.direct_K),
            direct_objective=self.direct_objective,
            searched_weights=by_name(self.domains, self.search.weights_K),
            searched_objective=self.search.value,
            additive_gain=None if self.additive_gain_T is None else by_name(self.tasks, self.additive_gain_T),
            kept=self.kept,
            binding=(),
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


def search_notes(
    found: SearchResult, direct_objective: float | None, *, is_no_better: bool, broken: Sequence[str] = ()
) -> Iterator[str]:
    """Say where the search failed: to keep the constraints, to better D's mixture, or where it started from.

    `broken` are the guarded texts that the mixture found would cost more than their guardrails let it.
    """
    if found.excess > 0:
        kept = "the one that comes nearest is taken" if direct_objective is None else "D's mixture is kept"
        asked = "to do as well as the prior on every target"
        cure = "set optimize.pareto to false"
        if broken:
            asked += f" and to keep the guardrails on {quoted(broken)}"
            cure += " or raise their tolerance (optimize.guardrails)"
        yield (
            f"No mixture that was searched is predicted {asked}, short by {found.excess:.2g} in normalised gain, so "
            f"{kept}. Widen the sweep (sweep.low, sweep.high, sweep.max_ratio), or {cure}."
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
    """Say which mixtures are outside what the candidates cover, the box, or at its edge.

    `weights_K` is the best of the search; the prior is None where its response is known.
    """
    low_K, high_K = box
    for name, mixture_K, use in (
        ("The prior", predicted_prior_K, "and so the gain over it"),
        ("D's mixture", direct_K, "which the searched mixture is weighed against"),
    ):
        if mixture_K is not None and (beyond_K := beyond(mixture_K, box) > _BEYOND).any():
            yield (
                f"{name} is outside what the candidates cover on {_chosen(domains, beyond_K)}: what is predicted for "
                f"it, {use}, is extrapolated."
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
    return np.maximum(np.maximum(box[0] - weights_K, weights_K - box[1]), 0)


def _chosen(names: Sequence[str], chosen: npt.NDArray[np.bool_]) -> str:
    return quoted([name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen])
