"""Which constraints no mixture satisfies together, and what would make room.

A linear program loosens all constraints by as little as possible in total. If that is nothing, there is a mixture. If
not, its multipliers name constraints that are infeasible by themselves (Farkas), few of many; those that can be left
out are dropped one by one (Chinneck's deletion filter), and what remains is irreducible: without any one of it there is
a mixture. Some 50 ms for 50 domains and 20 groups, the message included.

Axes: K domains, U constraints, R sums of weights over all constraints, V variables: the weights and the loosenings.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.constraints import Constraint
from tikmix_pipeline.mixture.simplex import ROUNDING, FloatArray

_LISTED = 8
"""Of more domains or changes than this a message names the first."""

_UNITS = 1e6
"""Advice is given in units of one over this; less than a thousandth of one is taken for noise of the solver."""


def refuse_infeasible(constraints: Sequence[Constraint], domains: Sequence[str]) -> None:
    """Refuse constraints that no mixture satisfies together.

    Raises:
        TikmixError: naming an irreducible infeasible subset, and what each of its constraints would have to be, the
            others left as they are, for a mixture to be there; where more are infeasible, also the least change of
            several.
    """
    program = _Program(constraints, domains)
    everything = range(len(constraints))
    loosened = program.loosen(everything, everything)
    if loosened is None or loosened.total > ROUNDING:
        subset = infeasible_subset(constraints, domains)
        raise TikmixError(f"{_complaint(program, subset)} {_advice(program, subset)}")


def infeasible_subset(constraints: Sequence[Constraint], domains: Sequence[str]) -> list[int]:
    """Return the positions of constraints that no mixture satisfies, though one does without any one of them.

    Where some mixture satisfies all constraints there are none.
    """
    program = _Program(constraints, domains)

    def infeasible(kept: Sequence[int]) -> list[int] | None:
        """Return those that are infeasible by themselves, by their multipliers; None if there is a mixture."""
        found = program.loosen(kept, kept)
        if found is None:
            return [*kept]
        return sorted({u for u, _ in found.pulling}) if found.total > ROUNDING else None

    subset = infeasible(range(len(constraints))) or []
    for u in tuple(subset):
        if u in subset and (smaller := infeasible([other for other in subset if other != u])) is not None:
            subset = smaller
    return subset


@dataclass(frozen=True, eq=False)
class _Loosened:
    """The least loosening that leaves a mixture."""

    total: float
    """Of all constraints, in units of weight."""
    values: dict[int, float]
    """What the parameter of each constraint that may be loosened is then."""
    pulling: frozenset[tuple[int, int]]
    """The sums `(constraint, position in it)` that hold it back."""


class _Program:
    """The constraints as a linear program over weights and how far each constraint is loosened."""

    def __init__(self, constraints: Sequence[Constraint], domains: Sequence[str]) -> None:
        self.constraints = constraints
        self.domains = domains
        position = {domain: k for k, domain in enumerate(domains)}
        self._rows: list[tuple[tuple[int, int], FloatArray, float, float]] = []
        for u, constraint in enumerate(constraints):
            for r, (members, limit, slope) in enumerate(
                zip(constraint.members, constraint.limits(), constraint.slopes(), strict=True)
            ):
                member_K = np.zeros(len(domains))
                member_K[[position[domain] for domain in members]] = 1
                signs = {"least": (-1,), "most": (1,), "exactly": (-1, 1)}[constraint.side]
                self._rows.extend(((u, r), sign * member_K, sign * limit, slope) for sign in signs)

    def loosen(self, kept: Collection[int], free: Collection[int]) -> _Loosened | None:
        """Loosen the constraints `free` as little as leaves a mixture within those that are kept; None if nothing does.

        A domain that was read too often stays at 0, however far `optimize.max_epochs` is loosened (`loosen_opening`).
        """
        from scipy.optimize import linprog  # its import takes half a second

        rows = [row for row in self._rows if row[0][0] in set(kept)]
        count = len(self.domains)
        column = {u: count + index for index, u in enumerate(free)}
        size = count + len(column)
        above_RV, limit_R = np.zeros((len(rows), size)), np.array([limit for _, _, limit, _ in rows])
        cost_V = np.zeros(size)
        for r, ((u, _), member_K, _, slope) in enumerate(rows):
            above_RV[r, :count] = member_K
            if u in column:
                above_RV[r, column[u]] = -slope
                cost_V[column[u]] = self.constraints[u].per_unit()
        found = linprog(
            cost_V,
            A_ub=above_RV if rows else None,
            b_ub=limit_R if rows else None,
            A_eq=np.append(np.ones(count), np.zeros(len(column)))[None],
            b_eq=[1.0],
            bounds=[(0, 1)] * count + [(0, None)] * len(column),
            method="highs",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if found.status != 0:
            return None
        multiplier_R = found.ineqlin.marginals if rows else np.zeros(0)
        return _Loosened(
            total=float(found.fun),
            values={u: self._value(u, float(found.x[index]), found.x[:count]) for u, index in column.items()},
            pulling=frozenset(row[0] for row, one in zip(rows, multiplier_R, strict=True) if abs(one) > ROUNDING),
        )

    def _value(self, u: int, slack: float, weights_K: FloatArray) -> float:
        """Return what a constraint's parameter has to be for the constraint to be loosened that far."""
        constraint = self.constraints[u]
        if constraint.side == "exactly":
            member_K = next(row[1] for row in self._rows if row[0] == (u, 0))
            return float(np.abs(member_K) @ weights_K)
        return constraint.value + slack * (1 if constraint.side == "most" else -1)

    def replacing(self, u: int, constraint: Constraint) -> "_Program":
        """Return the program with another constraint in the place of one."""
        return _Program([*self.constraints[:u], constraint, *self.constraints[u + 1 :]], self.domains)

    def loosen_opening(self, kept: Collection[int], free: Collection[int]) -> _Loosened | None:
        """Loosen as `loosen` does, and `optimize.max_epochs` as far as domains need that were read too often.

        Their limits are 0 up to `max_epochs = consumed / available` and move from there on. Between two such values all
        limits are linear, so the least over the programs that start at each of them is the least of all.
        """
        starts = [(0.0, self)]
        for u in free:
            constraint = self.constraints[u]
            for start in constraint.openings():
                cost = (start - constraint.value) * constraint.per_unit()
                starts.append((cost, self.replacing(u, replace(constraint, value=start))))
        loosened = [(cost, program.loosen(kept, free)) for cost, program in starts]
        found = [replace(one, total=one.total + cost) for cost, one in loosened if one is not None]
        return min(found, key=lambda one: one.total, default=None)


def _complaint(program: _Program, subset: Sequence[int]) -> str:
    found = program.loosen(subset, subset)
    told = []
    for u in subset:
        constraint = program.constraints[u]
        rows = [r for r in range(len(constraint.members)) if found is None or (u, r) in found.pulling]
        told.append(_in_words(constraint, rows))
    what = "all of these" if len(told) > 1 else "this"
    return f"No mixture, whose weights sum to 1, satisfies {what}: {'; '.join(told)}."


def _in_words(constraint: Constraint, rows: Sequence[int]) -> str:
    words = f"{constraint.parameter} = {constraint.value:.6g}"
    if constraint.kind == "group":
        members = [f"'{domain}'" for domain in constraint.members[0]]
        return f"{words} (the sum of {_shortened(members, ', ')})"
    if constraint.kind == "repetition":
        limits = constraint.limits()
        shares = [
            f"{limits[r]:.6g} to '{constraint.members[r][0]}' ({constraint.supplies[r].available:.0f} tokens are "
            f"there, {constraint.supplies[r].consumed:.0f} were read)"
            for r in rows
        ]
        return f"{words}, which leaves of the next {constraint.tokens} tokens at most {_shortened(shares, ', ')}"
    return words if len(constraint.members) == 1 else f"{words} for {len(constraint.members)} domains"


def _advice(program: _Program, subset: Sequence[int]) -> str:
    """Say which one of the infeasible constraints could make room by itself, else which several together."""
    everything = range(len(program.constraints))
    if cures := _cures_alone(program, subset, everything):
        return f"To make room, {', or '.join(cures)}."
    this = f"To end this clash, {', or '.join(_cures_alone(program, subset, subset))}."
    loosened = program.loosen_opening(everything, everything)
    if loosened is None:
        return this
    moved = {u: value for u, value in loosened.values.items() if abs(value - program.constraints[u].value) > ROUNDING}
    changes = [_cure(program.constraints[u], value) for u, value in moved.items()]
    return f"{this} Others clash besides; the least change that ends them all is to {_shortened(changes, ' and ')}."


def _cures_alone(program: _Program, subset: Sequence[int], kept: Collection[int]) -> list[str]:
    """Return for each of the infeasible constraints what makes room if the others that are kept stay as they are."""
    alone = {u: program.loosen_opening(kept, [u]) for u in subset}
    cures = {u: _cure(program.constraints[u], found.values[u]) for u, found in alone.items() if found is not None}
    # where more epochs would make room, so would more text
    by_text = [_more_text(program, u, kept) for u in cures if program.constraints[u].kind == "repetition"]
    return [*cures.values(), *by_text]


def _more_text(program: _Program, u: int, kept: Collection[int]) -> str:
    """Say what else than more epochs lets more be read; fewer tokens do not where nothing may be read at all."""
    helps = program.replacing(u, replace(program.constraints[u], tokens=1)).loosen(kept, []) is not None
    shorten = "shorten the chunk (chunk_tokens of `train` or `remix`; where it is given, remix.remaining_tokens) or "
    return f"{shorten if helps else ''}add text"


def _shortened(words: Sequence[str], joint: str) -> str:
    listed = joint.join(words[:_LISTED])
    return listed if len(words) <= _LISTED else f"{listed}{joint}{len(words) - _LISTED} more"


def _cure(constraint: Constraint, value: float) -> str:
    """Say what to set a parameter to, rounded to the side on which there is room."""
    rises = value > constraint.value
    change = f"{'raise' if rises else 'lower'} {constraint.parameter} from {constraint.value:.6g} to"
    if constraint.kind == "repetition":
        return f"{change} {round_up(value)}"
    units = math.ceil(value * _UNITS - 1e-3) if rises else math.floor(value * _UNITS + 1e-3)
    return f"{change} {max(0, units) / _UNITS:.6g}"


def round_up(value: float) -> str:
    """Return a positive value to three significant digits, never less than it."""
    digits = 2 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10**digits - 1e-6) / 10**digits:.6g}"
