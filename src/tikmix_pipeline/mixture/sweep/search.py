"""Algorithm 1 of the paper: Dirichlet draws around the best mixture, from wide to narrow.

In each round, draw from `Dirichlet(c · centre)`, evaluate all draws at once, and move the centre to the mean of the
best. The concentration c rises geometrically from `search.coarse` to `search.fine`: the paper's text goes from coarse
to fine, its listing the other way round. Draws outside the box are moved to the nearest mixture inside it, so that its
faces, where the best mixture often lies, are searched too. But for `evaluate`, 20 rounds of 4,096 draws take 0.3 s for
9 domains, 2 s for 26 in a box that most draws miss, and up to 8 s where most miss the limits on groups as well.

Some mixtures may not be allowed. How far each is from being so is minimised first, so the search finds its way to the
allowed ones even if it starts away from them.

Axes: N draws, K domains, S starts, R rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.simplex import Box, FloatArray, Halfspaces, project
from tikmix_pipeline.parameters.sweep import SearchParameters

Evaluate = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""From mixtures (N, K) to their objective, lower is better, and to how far each is from being allowed, 0 if it is."""

_DORMANT = 0.1
"""Dirichlet parameter of a domain that the centre leaves out or nearly so: most draws do too, but some try it."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found."""

    weights_K: FloatArray
    """The best of all mixtures that were evaluated, the starts and the rounds' centres among them."""
    value: float
    excess: float
    """How far it is from being allowed; 0 if it is."""
    trace: list[dict[str, float]]
    """One row per round: `search_round`, from 1, `concentration`, `best`, the lowest objective so far, and `centre`,
    that of the round's centre; NaN where no allowed mixture is known. Round 0 is the start."""
    centres_RK: FloatArray
    """The centre after each round, in the rows of `trace`."""


def search(
    evaluate: Evaluate,
    starts_SK: FloatArray,
    *,
    box: Box,
    groups: Halfspaces | None = None,
    parameters: SearchParameters,
    seed: int,
) -> SearchResult:
    """Return the best mixture that was found within the box and the limits on groups.

    The starts are moved inside these and evaluated first; the best of them is the first centre.
    """
    rng = np.random.default_rng(seed)
    best = _Evaluated.of(evaluate, project(np.atleast_2d(starts_SK), box, groups)).best(1)
    centre = best
    trace, centres = [_trace_row(0, np.nan, best, centre)], [centre.weights_NK[0]]
    concentrations = np.geomspace(parameters.coarse, parameters.fine, parameters.rounds).tolist()
    open_K = box[1] > 0  # a domain that the box leaves out stays out
    for number, concentration in enumerate(concentrations, start=1):
        alpha_K = np.maximum(concentration * centre.weights_NK[0, open_K], _DORMANT)
        drawn_NK = np.zeros((parameters.samples, len(open_K)))
        drawn_NK[:, open_K] = rng.dirichlet(alpha_K, size=parameters.samples)
        drawn = _Evaluated.of(evaluate, project(drawn_NK, box, groups)).joined(best)
        mean_K = drawn.best(parameters.top).allowed().weights_NK.mean(axis=0)
        centre = _Evaluated.of(evaluate, project(mean_K[None], box, groups))
        best = drawn.joined(centre).best(1)
        trace.append(_trace_row(number, concentration, best, centre))
        centres.append(centre.weights_NK[0])
    return SearchResult(
        weights_K=best.weights_NK[0],
        value=float(best.value_N[0]),
        excess=float(best.excess_N[0]),
        trace=trace,
        centres_RK=np.stack(centres),
    )


class _Evaluated(NamedTuple):
    """Mixtures with their objectives, and how far each is from being allowed."""

    weights_NK: FloatArray
    value_N: FloatArray
    excess_N: FloatArray

    @classmethod
    def of(cls, evaluate: Evaluate, weights_NK: FloatArray) -> "_Evaluated":
        return cls(weights_NK, *evaluate(weights_NK))

    def joined(self, other: "_Evaluated") -> "_Evaluated":
        return _Evaluated(*map(np.concatenate, zip(self, other, strict=True)))

    def at(self, rows: npt.NDArray[np.integer]) -> "_Evaluated":
        return _Evaluated(*(values[rows] for values in self))

    def best(self, count: int) -> "_Evaluated":
        """Return the best, allowed ones first."""
        return self.at(np.lexsort((self.value_N, self.excess_N))[:count])

    def allowed(self) -> "_Evaluated":
        """Return the allowed ones, or all if there are none."""
        is_allowed_N = self.excess_N <= 0
        return self.at(np.flatnonzero(is_allowed_N)) if is_allowed_N.any() else self


def _trace_row(number: int, concentration: float, best: _Evaluated, centre: _Evaluated) -> dict[str, float]:
    def shown(one: _Evaluated) -> float:
        return float(one.value_N[0]) if one.excess_N[0] <= 0 else np.nan

    return {"search_round": number, "concentration": concentration, "best": shown(best), "centre": shown(centre)}
