"""Which demands no mixture satisfies together, and what would make room.

A linear program loosens all demands by as little as possible in total. If that is nothing, there is a mixture. If not,
its multipliers name demands that clash by themselves (Farkas), few of many; those that the clash does without are
dropped one by one (Chinneck's deletion filter), and what is left is minimal: without any one of it there is a mixture.
Some 50 ms for 50 domains and 20 groups, the message included.

Axes: K domains, U demands, R sums of weights over all demands, V variables: the weights and the loosenings.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.constraints import Demand
from tikmix_pipeline.mixture.simplex import ROUNDING, FloatArray

_LISTED = 8
"""Of more domains or changes than this a message names the first."""

_UNITS = 1e6
"""Advice is given in units of one over this; less than a thousandth of one is taken for noise of the solver."""


@dataclass(frozen=True, eq=False)
class _Loosened:
    """The least loosening that leaves a mixture.

    Attributes:
        total: of all demands, in units of weight.
        values: what the parameter of each demand that may be loosened is then.
        pulling: the sums `(demand, position in it)` that hold it back.
    """

    total: float
    values: dict[int, float]
    pulling: frozenset[tuple[int, int]]


def refuse_clash(demands: Sequence[Demand], domains: Sequence[str]) -> None:
    """Refuse demands that no mixture satisfies together.

    Args:
        demands: what is asked.
        domains: names of axis K.

    Raises:
        TikmixError: naming a minimal set of demands that clash, and what each of them would have to be, the others left
            as they are, for a mixture to be there; where others clash besides, also the least change of several.
    """
    program = _Program(demands, domains)
    everything = range(len(demands))
    loosened = program.loosen(everything, everything)
    if loosened is None or loosened.total > ROUNDING:
        clash = minimal_clash(demands, domains)
        raise TikmixError(f"{_complaint(program, clash)} {_advice(program, clash)}")


def minimal_clash(demands: Sequence[Demand], domains: Sequence[str]) -> list[int]:
    """Return the positions of demands that clash, none of which the clash does without; none if there is a mixture."""
    program = _Program(demands, domains)

    def pulling(kept: Sequence[int]) -> list[int] | None:
        """Return those of the demands that clash by themselves, by their multipliers; None if there is a mixture."""
        found = program.loosen(kept, kept)
        if found is None:
            return [*kept]
        return sorted({u for u, _ in found.pulling}) if found.total > ROUNDING else None

    clash = pulling(range(len(demands)))
    if clash is None:
        return []
    for u in tuple(clash):
        if u in clash and (smaller := pulling([other for other in clash if other != u])) is not None:
            clash = smaller
    return clash


class _Program:
    """The demands as a linear program over weights and how far each demand is loosened."""

    def __init__(self, demands: Sequence[Demand], domains: Sequence[str]) -> None:
        self.demands = demands
        self.domains = domains
        position = {domain: k for k, domain in enumerate(domains)}
        self._rows: list[tuple[tuple[int, int], FloatArray, float, float]] = []
        for u, demand in enumerate(demands):
            for r, (members, limit, slope) in enumerate(
                zip(demand.members, demand.limits(), demand.slopes(), strict=True)
            ):
                member_K = np.zeros(len(domains))
                member_K[[position[domain] for domain in members]] = 1
                signs = {"least": (-1,), "most": (1,), "exactly": (-1, 1)}[demand.side]
                self._rows.extend(((u, r), sign * member_K, sign * limit, slope) for sign in signs)

    def loosen(self, kept: Collection[int], free: Collection[int]) -> _Loosened | None:
        """Loosen the demands `free` as little as leaves a mixture within the demands `kept`; None if nothing does.

        A domain that was read too often stays at 0, however far `optimize.max_epochs` is loosened (`loosen_opening`).
        """
        from scipy.optimize import linprog  # its import takes half a second

        rows = [row for row in self._rows if row[0][0] in set(kept)]
        count = len(self.domains)
        column = {u: count + index for index, u in enumerate(free)}
        size = count + len(column)
        above_RV, limit_R = np.zeros((len(rows), size)), np.array([limit for _, _, limit, _ in rows])
        cost = np.zeros(size)
        for r, ((u, _), member_K, _, slope) in enumerate(rows):
            above_RV[r, :count] = member_K
            if u in column:
                above_RV[r, column[u]] = -slope
                cost[column[u]] = self.demands[u].per_unit()
        sum_1K = np.append(np.ones(count), np.zeros(len(column)))[None]
        found = linprog(
            cost,
            A_ub=above_RV if rows else None,
            b_ub=limit_R if rows else None,
            A_eq=sum_1K,
            b_eq=[1.0],
            bounds=[(0, 1)] * count + [(0, None)] * len(column),
            method="highs",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if found.status != 0:
            return None
        multipliers = found.ineqlin.marginals if rows else np.zeros(0)
        weights_K = found.x[:count]
        return _Loosened(
            total=float(found.fun),
            values={u: self._value(u, float(found.x[index]), weights_K) for u, index in column.items()},
            pulling=frozenset(row[0] for row, price in zip(rows, multipliers, strict=True) if abs(price) > ROUNDING),
        )

    def _value(self, u: int, slack: float, weights_K: FloatArray) -> float:
        """Return what a demand's parameter has to be for the demand to be loosened that far."""
        demand = self.demands[u]
        if demand.side == "exactly":
            member_K = next(row[1] for row in self._rows if row[0] == (u, 0))
            return float(np.abs(member_K) @ weights_K)
        return demand.value + slack * (1 if demand.side == "most" else -1)

    def with_demand(self, u: int, demand: Demand) -> "_Program":
        """Return the program with another demand in the place of one."""
        return _Program([*self.demands[:u], demand, *self.demands[u + 1 :]], self.domains)

    def loosen_opening(self, kept: Collection[int], free: Collection[int]) -> _Loosened | None:
        """Loosen as `loosen` does, and `optimize.max_epochs` as far as domains need that were read too often.

        Their limits are 0 up to `max_epochs = consumed / available` and move from there on. Between two such values all
        limits are linear, so the least over the programs that start at each of them is the least of all.
        """
        starts = [(0.0, self)]
        for u in free:
            demand = self.demands[u]
            for start in demand.openings():
                cost = (start - demand.value) * demand.per_unit()
                starts.append((cost, self.with_demand(u, replace(demand, value=start))))
        loosened = [(cost, program.loosen(kept, free)) for cost, program in starts]
        found = [replace(one, total=one.total + cost) for cost, one in loosened if one is not None]
        return min(found, key=lambda one: one.total, default=None)


def _complaint(program: _Program, clash: Sequence[int]) -> str:
    found = program.loosen(clash, clash)
    told = []
    for u in clash:
        demand = program.demands[u]
        rows = [r for r in range(len(demand.members)) if found is None or (u, r) in found.pulling]
        told.append(_in_words(demand, rows))
    what = "all of these" if len(told) > 1 else "this"
    return f"No mixture, whose weights sum to 1, satisfies {what}: {'; '.join(told)}."


def _in_words(demand: Demand, rows: Sequence[int]) -> str:
    words = f"{demand.parameter} = {demand.value:.6g}"
    if demand.kind == "group":
        members = [f"'{domain}'" for domain in demand.members[0]]
        return f"{words} (the sum of {_shortened(members, ', ')})"
    if demand.kind == "repetition":
        limits = demand.limits()
        shares = [
            f"{limits[r]:.6g} to '{demand.members[r][0]}' ({demand.supplies[r].available:.0f} tokens are there, "
            f"{demand.supplies[r].consumed:.0f} were read)"
            for r in rows
        ]
        return f"{words}, which leaves of the next {demand.chunk_tokens} tokens at most {_shortened(shares, ', ')}"
    return words if len(demand.members) == 1 else f"{words} for {len(demand.members)} domains"


def _advice(program: _Program, clash: Sequence[int]) -> str:
    """Say which one of the clashing demands could make room by itself, else which several together."""
    everything = range(len(program.demands))
    if cures := _cures_alone(program, clash, everything):
        return f"To make room, {', or '.join(cures)}."
    this = f"To end this clash, {', or '.join(_cures_alone(program, clash, clash))}."
    loosened = program.loosen_opening(everything, everything)
    if loosened is None:
        return this
    moved = {u: value for u, value in loosened.values.items() if abs(value - program.demands[u].value) > ROUNDING}
    steps = [_cure(program.demands[u], value) for u, value in moved.items()]
    return f"{this} Others clash besides; the least change that ends them all is to {_shortened(steps, ' and ')}."


def _cures_alone(program: _Program, clash: Sequence[int], kept: Collection[int]) -> list[str]:
    """Return for each of the clashing demands what makes room if the others that are kept stay as they are."""
    alone = {u: program.loosen_opening(kept, [u]) for u in clash}
    cures = {u: _cure(program.demands[u], found.values[u]) for u, found in alone.items() if found is not None}
    # where more epochs would make room, so would more text
    by_text = [_more_text(program, u, kept) for u in cures if program.demands[u].kind == "repetition"]
    return [*cures.values(), *by_text]


def _more_text(program: _Program, u: int, kept: Collection[int]) -> str:
    """Say what else than more epochs lets more be read; a shorter chunk does not where nothing may be read at all."""
    helps = program.with_demand(u, replace(program.demands[u], chunk_tokens=1)).loosen(kept, []) is not None
    shorten = "shorten the chunk (chunk_tokens of `train` or `remix`) or "
    return f"{shorten if helps else ''}add text"


def _shortened(words: Sequence[str], joint: str) -> str:
    listed = joint.join(words[:_LISTED])
    return listed if len(words) <= _LISTED else f"{listed}{joint}{len(words) - _LISTED} more"


def _cure(demand: Demand, value: float) -> str:
    """Say what to set a parameter to, rounded to the side on which there is room."""
    rises = value > demand.value
    verb = "raise" if rises else "lower"
    if demand.kind == "repetition":
        return f"{verb} {demand.parameter} from {demand.value:.6g} to {round_up(value)}"
    units = math.ceil(value * _UNITS - 1e-3) if rises else math.floor(value * _UNITS + 1e-3)
    return f"{verb} {demand.parameter} from {demand.value:.6g} to {max(0, units) / _UNITS:.6g}"


def round_up(value: float) -> str:
    """Return a positive value to three significant digits, never less than it."""
    digits = 2 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10**digits - 1e-6) / 10**digits:.6g}"
