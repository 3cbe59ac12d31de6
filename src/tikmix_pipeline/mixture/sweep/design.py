"""Which mixtures to measure as candidates: a Latin hypercube around TiKMiX-D's, or Dirichlet draws around the prior.

Both draw more than they need, round to 6 decimals, and keep what lies in its box and differs from the rest. Of Latin
hypercube draws over `[0.5, 2] × w` with 26 domains about one in eight is kept; 256 candidates take about half a second.
Limits on groups would reject most of what is left, or all where a sum is fixed: what lies in the box but outside them
is moved to the nearest mixture within both.

Axes: N candidates, K domains.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.errors import TikmixError, quoted
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.records import BoxRecord, DecisionRecord, SweepDesign, TokenBudget
from tikmix_pipeline.mixture.simplex import Box, FloatArray, by_name, check_mixture, project, round_to_simplex
from tikmix_pipeline.mixture.sweep.regression_data import REFERENCE
from tikmix_pipeline.mixture.sweep.responses import run_table
from tikmix_pipeline.parameters.decision import StepBoundsParameters
from tikmix_pipeline.parameters.sweep import DesignParameters

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)

_DECIMALS = 6
_ROUNDED = 1e-6
"""Rounding to so many decimals moves no weight by as much."""

_HELD = 4 * _ROUNDED
"""A domain whose interval is no wider has no room once its ends are moved in by what rounding may add."""

_APART = 1e-5
"""Candidates nearer than this in the L1 norm are one and the same (RegMix's rule)."""

_ALIKE = 0.02
"""Candidates whose mean L1 distance from the centre is below this hardly differ."""

_BATCH = 16
"""Draws per batch, over the candidates wanted."""

_BATCHES = 250

_TELLING = 32
"""Of so many draws in the box one in a hundred has to be new, or there is no point in going on."""

_STRENGTHS = 15
_TINY = 2e-4
"""RegMix leaves out a domain whose share is smaller."""


@dataclass(frozen=True, eq=False)
class Design:
    """Candidate mixtures, one per row, the centre first; no two are the same."""

    weights_NK: FloatArray
    acceptance: float
    """The share of draws that lay in the box."""
    notes: tuple[str, ...]
    box: Box


def draw_candidates(
    decision: DecisionRecord,
    budget: TokenBudget,
    optimize: StepBoundsParameters,
    sweep: DesignParameters,
    *,
    seed: int,
) -> tuple["pd.DataFrame", SweepDesign]:
    """Draw the candidates of a round around D's mixture or around the prior.

    Where branches are to be trained, the reference and D's mixture are among them: influence is known of any mixture,
    but what a branch under these would do has to be measured too. The candidates are in Olmix's columns.

    Raises:
        TikmixError: no mixture satisfies the bounds, or they leave too little room for so many candidates.
    """
    domains, bounds = budget.domains, budget.step_bounds(optimize)
    if sweep.design == "latin_hypercube":
        direct_K = check_mixture(decision.weights, domains, "D's mixture")
        design = latin_hypercube(
            direct_K, count=sweep.candidates, low=sweep.low, high=sweep.high, bounds=bounds, seed=seed
        )
    else:
        design = dirichlet(
            check_mixture(decision.prior or {}, domains, "the prior mixture"),
            count=sweep.candidates,
            min_strength=sweep.min_strength,
            max_strength=sweep.max_strength,
            max_ratio=sweep.max_ratio,
            bounds=bounds,
            seed=seed,
        )
    for note in design.notes:
        _LOG.warning("%s", note)
    rows = {f"c{number:04d}": weights_K for number, weights_K in enumerate(design.weights_NK.tolist())}
    if sweep.response == "lookahead":
        for name, weights in ((REFERENCE, decision.reference or {}), ("direct", decision.weights)):
            known = [weights[domain] for domain in domains]
            if known not in rows.values():
                rows[name] = known
    low, high = (by_name(domains, side_K) for side_K in design.box)
    record = SweepDesign(box=BoxRecord(low=low, high=high), acceptance=design.acceptance, notes=design.notes)
    return run_table(rows, domains), record


def latin_hypercube(centre_K: FloatArray, *, count: int, low: float, high: float, bounds: Bounds, seed: int) -> Design:
    """Return candidates around a mixture: `[low, high] × w` per domain, renormalised, rejected if they leave that.

    A domain without weight stays without, and one whose interval is a point keeps its weight. The centre, TiKMiX-D's
    mixture, is moved inside the bounds, which no candidate leaves, and is the first of `count`.

    Raises:
        TikmixError: the intervals leave too little room for `count` candidates.
    """
    from scipy.stats import qmc

    centre_K = bounds.project(centre_K)
    least_K, most_K = bounds.box()
    box = np.maximum(low * centre_K, least_K), np.minimum(high * centre_K, most_K)
    pool = _Pool(
        centre_K,
        box,
        bounds,
        causes=f"The intervals are sweep.low = {low:g} to sweep.high = {high:g} times D's mixture, within its bounds.",
        parameters=("sweep.low", "sweep.high"),
        centre="D's mixture",
        corner=(
            "set sweep.design to dirichlet, which draws around the prior instead, or have D leave no domain out, by "
            "optimize.min_weight or a larger optimize.entropy"
        ),
    )
    sampler = qmc.LatinHypercube(int(pool.free_K.sum()), rng=np.random.default_rng(seed))

    def draw() -> FloatArray:
        scaled_NF = qmc.scale(sampler.random(_BATCH * count), box[0][pool.free_K], box[1][pool.free_K])
        return pool.complete(scaled_NF)

    return pool.filled(draw, count)


def dirichlet(
    prior_K: FloatArray,
    *,
    count: int,
    min_strength: float,
    max_strength: float,
    max_ratio: float,
    bounds: Bounds,
    seed: int,
) -> Design:
    """Return candidates around a prior as RegMix draws them, `w ~ Dirichlet(s · K · prior)`.

    Small strengths s give mixtures of few domains, large ones mixtures near the prior; 15 of them are spaced evenly in
    their logarithm. No share is more than `max_ratio` times the prior's. The prior is moved inside the bounds, which no
    candidate leaves, and is the first of `count`.

    Raises:
        TikmixError: the caps leave too little room for `count` candidates.
    """
    prior_K = bounds.project(prior_K)
    least_K, most_K = bounds.box()
    box = least_K, np.minimum(max_ratio * prior_K, most_K)
    pool = _Pool(
        prior_K,
        box,
        bounds,
        causes=(
            f"The draws have strengths from sweep.min_strength = {min_strength:g} to sweep.max_strength = "
            f"{max_strength:g}, no share above sweep.max_ratio = {max_ratio:g} times the prior's, and the bounds hold."
        ),
        parameters=("optimize.min_weight", "sweep.max_ratio"),
        centre="The prior",
        corner=(
            "set tikmix.prior to a mixture that has some of them, and sweep.max_ratio so that they may take a "
            "noticeable share"
        ),
    )
    rng = np.random.default_rng(seed)
    strengths = np.geomspace(min_strength, max_strength, _STRENGTHS) * len(prior_K)
    prior_F = prior_K[pool.free_K]

    def draw() -> FloatArray:
        rows = -(-_BATCH * count // _STRENGTHS)
        draw_NF = rng.permutation(np.concatenate([rng.dirichlet(s * prior_F, size=rows) for s in strengths]))
        return pool.complete(np.where(draw_NF < _TINY, 0, draw_NF))

    return pool.filled(draw, count)


class _Pool:
    """Candidates kept so far, and the draws that were not. Axis F: the domains that are free to vary."""

    def __init__(
        self,
        centre_K: FloatArray,
        box: Box,
        bounds: Bounds,
        *,
        causes: str,
        parameters: tuple[str, str],
        centre: str,
        corner: str,
    ) -> None:
        """Begin with the centre; the bounds are the part of the box that is not the sweep's own.

        For complaints, `causes` says what makes the box as narrow as it is, `parameters` set its lower and its upper
        side, `centre` is what the first candidate is called, and `corner` what to do where that leaves domains out.
        """
        self.kept = [centre_K]
        self.free_K = box[1] - box[0] > _HELD
        self._centre_K, self._box, self._bounds = centre_K, box, bounds
        self._causes, self._parameters, self._centre, self._corner = causes, parameters, centre, corner
        # a cap is a cap: what rounding may add has to fit in too
        self._low_K = np.where(box[0] > 0, box[0] + _ROUNDED, 0)
        self._high_K = np.where(box[1] < 1, box[1] - _ROUNDED, 1)
        self._groups = bounds.halfspaces()
        within = np.where(self.free_K, self._low_K, centre_K), np.where(self.free_K, self._high_K, centre_K)
        # where the groups ask for all that the caps allow, rounding may miss either by its last decimal
        self._within = within if self._groups.has_room(within) else box
        self._drawn, self._accepted = 0, 0
        self._below_K, self._above_K = np.zeros((2, len(centre_K)), dtype=np.int64)
        free = int(self.free_K.sum())
        if free < 2:
            raise TikmixError(
                f"Of {len(centre_K)} domains, {free} {'has' if free == 1 else 'have'} room to vary, and at least two "
                f"must. {causes} {self._widen}"
            )

    @property
    def _widen(self) -> str:
        """Say how to give domains room; multiples of no weight are none, so to widen their intervals is no help."""
        low, high = self._parameters
        widen = (
            f"Lower {low}, raise {high}, or give the domains more room (optimize.max_epochs, optimize.bounds, "
            "optimize.groups)."
        )
        without_K = ~self.free_K & (self._centre_K <= _HELD) & (self._bounds.box()[1] > _HELD)
        if not without_K.any():
            return widen
        names = quoted([name for name, is_without in zip(self._bounds.domains, without_K, strict=True) if is_without])
        corner = f"{self._centre} gives no weight to {names}, and multiples of zero stay zero: {self._corner}."
        return corner if (self._centre_K > _HELD).sum() < 2 else f"{widen} {corner}"

    def complete(self, free_NF: FloatArray) -> FloatArray:
        """Return mixtures with these proportions of the free domains; the others have their share of the centre."""
        open_share = 1 - self._centre_K[~self.free_K].sum()
        weights_NK = np.tile(self._centre_K, (len(free_NF), 1))
        weights_NK[:, self.free_K] = free_NF * (open_share / free_NF.sum(axis=1, keepdims=True))
        return weights_NK

    def filled(self, draw: Callable[[], FloatArray], count: int) -> Design:
        """Draw until `count` candidates are kept; refuse where too few of very many draws can be."""
        for _ in range(_BATCHES):
            if len(self.kept) >= count:
                break
            before, accepted_before = len(self.kept), self._accepted
            self._sift(draw(), count)
            accepted, new = self._accepted - accepted_before, len(self.kept) - before
            if accepted >= _TELLING and new < accepted / 100 and len(self.kept) < count:
                raise TikmixError(self._shortfall(count, are_alike=True))
        if len(self.kept) < count:
            raise TikmixError(self._shortfall(count, are_alike=False))
        return Design(np.stack(self.kept), self._accepted / max(self._drawn, 1), self._notes(), self._box)

    def _sift(self, draw_NK: FloatArray, count: int) -> None:
        below_NK = (draw_NK < self._low_K) & self.free_K
        above_NK = (draw_NK > self._high_K) & self.free_K
        inside_N = ~(below_NK | above_NK).any(axis=1)
        self._drawn += len(draw_NK)
        self._accepted += int(inside_N.sum())
        self._below_K += below_NK.sum(axis=0)
        self._above_K += above_NK.sum(axis=0)
        for weights_K in project(draw_NK[inside_N], self._within, self._groups):
            if len(self.kept) >= count:
                return
            rounded_K = round_to_simplex(weights_K, _DECIMALS)
            if np.abs(np.stack(self.kept) - rounded_K).sum(axis=1).min() > _APART:
                self.kept.append(rounded_K)

    def _shortfall(self, count: int, *, are_alike: bool) -> str:
        """Say how many candidates there are, which domain rejects most draws, and what would give it room."""
        found = f"Only {len(self.kept)} of {count} candidates were found in {self._drawn} draws:"
        if are_alike:
            return f"{found} the others hardly differ from these. {self._causes} {self._widen}"
        rejected_K = np.maximum(self._below_K, self._above_K)
        k = int(rejected_K.argmax())
        share = rejected_K[k] / self._drawn
        side = 0 if self._below_K[k] > self._above_K[k] else 1
        limit = (self._bounds.lower, self._bounds.upper)[side][k]
        weight = float(self._box[side][k])
        parameter = limit.parameter if limit.parameter and limit.weight == weight else self._parameters[side]
        return (
            f"{found} the domain '{self._bounds.domains[k]}', which rejects most, is {('below', 'above')[side]} "
            f"{weight:.4g} in {share:.0%} of them. {self._causes} {('Lower', 'Raise')[side]} {parameter} to "
            "give it room, or ask for fewer sweep.candidates."
        )

    def _notes(self) -> tuple[str, ...]:
        """Say if the candidates hardly differ, and what to widen."""
        distance = float(np.abs(np.stack(self.kept) - self._centre_K).sum(axis=1).mean())
        if distance >= _ALIKE:
            return ()
        return (
            f"The candidates hardly differ: their weights are off the centre's by {distance:.2g} in total on average, "
            f"so their responses hardly differ either. {self._causes} {self._widen}",
        )
