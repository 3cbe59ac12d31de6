"""Bounds within which no mixture keeps a guardrail against the prior itself: which are at fault, what would make room.

A guardrail holds against the reference. Where the bounds leave the prior outside, that is the nearest mixture inside
them, so that some mixture always keeps it; but its text may then lose more over the prior than the tolerance says. If
the bounds alone cost more than that, they are named as infeasible bounds are (`mixture.infeasible`): an irreducible
subset, found by leaving out one parameter after another (Chinneck's deletion filter), and what each would have to be.
Whether there is room is a convex problem: the most that any mixture within some of the bounds can be inside the
guardrail.

Axes: C guardrails, K domains.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tikmix_pipeline.errors import quoted
from tikmix_pipeline.mixture.bounds import Bounds, Limit
from tikmix_pipeline.mixture.guardrails import EVERYTHING, GuardedText, guardrail_constraints
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.objective import Objective
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.solver import minimise

_FEASIBLE = 1e-6
"""By how much a guardrail may be missed, as a share of the largest influence on the mean of the tasks."""

_HALVINGS = 25
_MOST_DOUBLINGS = 12
_DIGITS = 4
"""Of a value that would make room."""
_LISTED = 3


@dataclass(frozen=True, eq=False)
class Room:
    """What tells whether bounds leave room within guardrails against the prior; names as in `guardrail_constraints`."""

    bounds: Bounds
    prior_K: FloatArray
    mean_K: FloatArray
    saturation: float
    curved_KK: FloatArray

    def notes(self, texts: Sequence[GuardedText]) -> Iterator[str]:
        """Say of each guardrail that no mixture within the bounds keeps against the prior why, and what would help."""
        for text in texts:
            if not self._has_room(text, self.bounds):
                yield self._told(text, self._at_fault(text))

    def _has_room(self, text: GuardedText, bounds: Bounds) -> bool:
        best_K = self._best(text, bounds)
        return float(self._against_prior(text).room(best_K[None])[0, 0]) >= -_FEASIBLE

    def _best(self, text: GuardedText, bounds: Bounds) -> FloatArray:
        """Return the mixture within the bounds that is furthest inside a guardrail."""
        guard = self._against_prior(text)
        curved_KK = guard.bend_C[0] * self.curved_KK
        of_text = {"curved_KK": curved_KK, "logarithms": guard.logarithms}
        inside = Objective(guard.rows_CK, uniformity=0.0, gain=1.0, entropy=0.0, **of_text)
        return minimise(inside, bounds, bounds.project(self.prior_K)).weights_K

    def _against_prior(self, text: GuardedText) -> LeastGains:
        return guardrail_constraints(
            [text.gain],
            np.array([text.share]),
            np.array([text.slack]),
            mean_K=self.mean_K,
            reference_K=self.prior_K,
            saturation=self.saturation,
            curved_KK=self.curved_KK,
        )

    def _at_fault(self, text: GuardedText) -> list[str]:
        """Return parameters whose bounds leave no room together, though they do without any one of them."""
        subset = list(dict.fromkeys(limit.parameter for limit, _, _ in limits_of(self.bounds)))
        for parameter in tuple(subset):
            rest = [other for other in subset if other != parameter]
            if not self._has_room(text, within(self.bounds, rest)):
                subset = rest
        return subset

    def _told(self, text: GuardedText, parameters: Sequence[str]) -> str:
        named = [words for limit, _, words in limits_of(self.bounds) if limit.parameter in parameters]
        listed = "; ".join(named[:_LISTED]) + (f"; {len(named) - _LISTED} more" if len(named) > _LISTED else "")
        cures = [*self._cures(text, parameters), *self._more_tolerance(text)]
        whose = "held-out text" if text.name == EVERYTHING else f"'{text.name}'"
        return (
            f"No mixture within these bounds keeps the guardrail on {whose} against the prior itself: {listed}. It "
            "holds against the nearest mixture inside the bounds instead. To keep it against the prior, "
            f"{', or '.join(cures)}."
        )

    def _cures(self, text: GuardedText, parameters: Sequence[str]) -> Iterator[str]:
        """Say what each of the parameters would have to be for the others to stay."""
        kept = within(self.bounds, parameters)
        for parameter in parameters:
            own = [(limit, members) for limit, members, _ in limits_of(kept) if limit.parameter == parameter]
            if len(own) > 1 or own[0][0].reason != "user":
                yield f"loosen {parameter}"
                continue
            (limit, members), *_ = own
            # there is room where the best mixture without it lies, and so somewhere on the way there
            free_K = self._best(text, within(kept, [other for other in parameters if other != parameter]))
            way = float(free_K[[*members]].sum()) - limit.weight

            def has_room(share: float, limit: Limit = limit, way: float = way) -> bool:
                moved = replace(limit, weight=limit.weight + share * way)
                return self._has_room(text, _replacing(kept, limit, moved))

            found = _rounded(limit.weight + way * _least_share(has_room), up=way > 0)
            yield f"{'raise' if way > 0 else 'lower'} {parameter} from {limit.weight:.6g} to {found:.6g}"

    def _more_tolerance(self, text: GuardedText) -> Iterator[str]:
        """Say which tolerance any mixture within the bounds keeps; nothing where none does."""
        tolerance = text.guardrail.tolerance

        def has_room(more: float) -> bool:
            raised = text.with_tolerance(tolerance + more)
            return self._has_room(raised, self.bounds)

        most = next((2.0**power for power in range(-2, _MOST_DOUBLINGS) if has_room(2.0**power)), None)
        if most is not None:
            found = _rounded(tolerance + most * _least_share(lambda share: has_room(most * share)), up=True)
            yield f"raise {text.parameter}.tolerance from {tolerance:.6g} to {found:.6g}"


def limits_of(bounds: Bounds) -> Iterator[tuple[Limit, tuple[int, ...], str]]:
    """Yield every limit but that weights are from 0 to 1: with the positions of its domains, and in words."""
    for k, (domain, low, high) in enumerate(zip(bounds.domains, bounds.lower, bounds.upper, strict=True)):
        # a pin is one limit on both sides
        sides = [("pinned to", low)] if low is high else [("at least", low), ("at most", high)]
        for side, limit in sides:
            if limit.reason != "simplex":
                yield limit, (k,), f"'{domain}' {side} {limit.weight:.6g} ({limit.parameter})"
    for group in bounds.groups:
        side = "at least" if group.side == "lower" else "at most"
        members = quoted([bounds.domains[k] for k in group.members])
        yield (
            group.limit,
            group.members,
            f"{members} together {side} {group.limit.weight:.6g} ({group.limit.parameter})",
        )


def within(bounds: Bounds, parameters: Collection[str]) -> Bounds:
    """Return the bounds that some parameters set, without the others."""
    return replace(
        bounds,
        lower=tuple(low if low.parameter in parameters else Limit(0.0) for low in bounds.lower),
        upper=tuple(high if high.parameter in parameters else Limit(1.0) for high in bounds.upper),
        groups=tuple(group for group in bounds.groups if group.limit.parameter in parameters),
    )


def _replacing(bounds: Bounds, old: Limit, new: Limit) -> Bounds:
    return replace(
        bounds,
        lower=tuple(new if limit is old else limit for limit in bounds.lower),
        upper=tuple(new if limit is old else limit for limit in bounds.upper),
        groups=tuple(replace(group, limit=new) if group.limit is old else group for group in bounds.groups),
    )


def _least_share(has_room: Callable[[float], bool]) -> float:
    """Return the least share of a way at whose end there is room that leads to room; room grows along it."""
    short, enough = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (short + enough) / 2
        short, enough = (short, middle) if has_room(middle) else (middle, enough)
    return enough


def _rounded(value: float, *, up: bool) -> float:
    """Return a value to some digits, on the side of it on which there is room."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    return (math.ceil(value / unit - 1e-6) if up else math.floor(value / unit + 1e-6)) * unit
