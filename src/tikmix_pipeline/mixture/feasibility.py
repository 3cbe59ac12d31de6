"""Whether some mixture satisfies all bounds, asked before anything is measured or trained.

A decision rests on the influence matrix; whether there is anything to decide does not. The bounds of the user, how
often text may be read, how much of it there is and how much was read say so by themselves, for all chunks to come.
Those are feasible if and only if one mixture for all of them is: the mean of the mixtures of many chunks is within
bounds that each of them is within, and reads as much.
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.infeasible import round_up
from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.mixture.simplex import ROUNDING
from tikmix_pipeline.parameters.decision import BoundsParameters

_LISTED = 8
"""Of more domains than this a message names those with most text."""


@dataclass(frozen=True)
class Chunks:
    """The chunks that mixtures are still to be decided for, in the words of whoever trains them."""

    count: int
    subject: str
    """What they are, for the start of a message."""
    chunk_parameter: str
    """Sets how long a chunk is."""
    step_tokens: int = 1
    """A chunk is a whole number of so many tokens."""
    remedies: tuple[str, ...] = ()
    """What would help besides a shorter chunk and more epochs."""
    follow_first: bool = False
    """Whether what was read, by the budget, is a first chunk that is still to be trained and as long as the others."""


def require_feasible(bounds: BoundsParameters, budget: TokenBudget, chunks: Chunks) -> None:
    """Refuse chunks, each as long as the coming one, for which no mixtures satisfy all bounds.

    Raises:
        TikmixError: saying how much text there is, how much of it was read and what is to be read, if that is too
            much; else which bounds are infeasible together. It names the parameters to change.
    """
    supplies, tokens = budget.supplies(), chunks.count * budget.chunk_tokens
    has_text = all(supply.available > 0 for supply in supplies.values())
    if has_text and tokens > _left(bounds, supplies) * (1 + ROUNDING):
        raise TikmixError(_too_long(bounds, budget, chunks))
    try:
        mixture_bounds(bounds, supplies, tokens, budget.current)
    except TikmixError as error:
        raise TikmixError(f"{chunks.subject}: {error}") from None


def _left(bounds: BoundsParameters, supplies: Mapping[str, Supply], read: float = 1.0) -> float:
    """Return how many tokens may still be read, if of what was read no more than a share had been."""
    return sum(max(0.0, bounds.max_epochs * one.available - read * one.consumed) for one in supplies.values())


def _too_long(bounds: BoundsParameters, budget: TokenBudget, chunks: Chunks) -> str:
    supplies, tokens = budget.supplies(), chunks.count * budget.chunk_tokens
    there, read = (sum(getattr(one, name) for one in supplies.values()) for name in ("available", "consumed"))
    longest = _longest_chunk(bounds, budget, chunks)
    ways = [
        *([f"lower {chunks.chunk_parameter} to {longest}"] if longest else []),
        f"raise optimize.max_epochs to {round_up(_least_epochs(supplies, tokens))}",
        *chunks.remedies,
    ]
    how_read = "go to the first chunk" if chunks.follow_first else "were read already"
    return (
        f"{chunks.subject}: {tokens} tokens are to be read, and {_left(bounds, supplies):.0f} may be. There are "
        f"{there:.0f} tokens of text ({_listed(budget)}), {read:.0f} {how_read}, and "
        f"optimize.max_epochs = {bounds.max_epochs:.6g} is how often a domain may be read. "
        f"To go on, {', or '.join(ways)}."
    )


def _listed(budget: TokenBudget) -> str:
    by_size = sorted(budget.available, key=lambda domain: -budget.available[domain])
    listed = [f"'{domain}' {budget.available[domain]:.0f}" for domain in by_size[:_LISTED]]
    return ", ".join([*listed, *([f"{len(by_size) - _LISTED} more domains"] if len(by_size) > _LISTED else [])])


def _longest_chunk(bounds: BoundsParameters, budget: TokenBudget, chunks: Chunks) -> int:
    """Return the longest chunk, in whole steps, of which all chunks may be read; 0 if there is none."""
    supplies, step = budget.supplies(), chunks.step_tokens

    def is_too_long(steps: int) -> bool:
        read = steps * step / budget.chunk_tokens if chunks.follow_first else 1.0
        return chunks.count * steps * step > _left(bounds, supplies, read)

    return bisect.bisect_left(range(1, budget.chunk_tokens // step + 1), True, key=is_too_long) * step


def _least_epochs(supplies: Mapping[str, Supply], tokens: float) -> float:
    """Return the least `max_epochs` at which so many tokens may be read; of what was read more often none may be."""
    available, consumed, epochs = 0.0, 0.0, 0.0
    for supply in sorted(supplies.values(), key=lambda supply: supply.consumed / supply.available):
        if available and epochs <= supply.consumed / supply.available:
            break  # this one and the rest were read more often
        available, consumed = available + supply.available, consumed + supply.consumed
        epochs = (tokens + consumed) / available
    return epochs
