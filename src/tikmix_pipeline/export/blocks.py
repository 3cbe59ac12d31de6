"""Levanter's blocks: stages start at whole blocks, and a block holds whole sequences of each domain.

    block        N sequences; divides every start in sequences, at most 65,535
    counts       by domain, summing to N; a domain with weight has at least one

Levanter normalises the weights, truncates w_j N, and gives what is left to the domain with the most. So a weight below
1 / N gets nothing there, and truncation alone would take up to a sequence per block from every domain but one: the
counts are decided here by largest remainder, and the weights written such that the truncation comes out at them.
Source: levanter/data/mixture.py (`_compute_expected_counts_per_block`), data/text.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.shares import DECIMALS, Shares, shares_of

LARGEST_BLOCK = 65535
_ENOUGH = 256
"""Starts are left where they are as long as they allow blocks of so many sequences, or of the shortest stage."""


@dataclass(frozen=True)
class BlockGrid:
    """Blocks, and the stages' starts on them.

    Attributes:
        block: sequences of a block.
        start_steps: optimiser steps done before each stage.
        block_before: sequences of a block in the file of the stages before the last; None if there are none.
    """

    block: int
    start_steps: tuple[int, ...]
    block_before: int | None = None


def block_grid(start_steps: Sequence[int], end_step: int, batch: int) -> BlockGrid:
    """Return the blocks of a run, stage by stage as the files of its rounds have them.

    A size of block that changes from launch to launch moves the domains' cursors, so it is kept as long as it divides
    the new start and is not more than the new stage.

    Args:
        start_steps: optimiser steps done before each stage, the first 0, increasing.
        end_step: optimiser steps done when the last stage ends.
        batch: sequences of a global batch.
    """
    grid = _new_grid([start_steps[0]], [*start_steps, end_step][1], batch)
    ends = [*start_steps[2:], end_step]
    for number, (start, end) in enumerate(zip(start_steps[1:], ends, strict=True), start=1):
        if start * batch % grid.block == 0 and grid.block <= (end - start) * batch:
            grid = BlockGrid(grid.block, (*grid.start_steps, start), grid.block)
        else:
            grid = replace(_new_grid(start_steps[: number + 1], end, batch), block_before=grid.block)
    return grid


def _new_grid(start_steps: Sequence[int], end_step: int, batch: int) -> BlockGrid:
    """Return the largest blocks that divide the starts, or blocks of usable size and the starts moved to them.

    The end of the last stage is to be on the grid too where that costs little: it is where the next stage will start.
    """
    bounds = [*start_steps, end_step]
    shortest = min(after - before for before, after in pairwise(bounds)) * batch
    enough = min(_ENOUGH, shortest)
    for steps in (bounds, start_steps):
        size = _largest_divisor(math.gcd(*steps) * batch, shortest)
        if size >= enough:
            return BlockGrid(size, tuple(start_steps))
    grid_steps = -(-enough // batch)
    size = _largest_divisor(grid_steps * batch, shortest)
    return BlockGrid(size, tuple((2 * step + grid_steps) // (2 * grid_steps) * grid_steps for step in start_steps))


def block_counts(shares: Shares, block: int) -> dict[str, int]:
    """Return how many sequences of a block each domain gets, by largest remainder, at least one.

    Raises:
        TikmixError: a block has less than two sequences per domain.
    """
    if 2 * len(shares) > block:
        raise TikmixError(
            f"Levanter deals sequences out in blocks, here of {block}, and {len(shares)} domains have weight: a block "
            "has to have at least two sequences for each. Make the chunk longer, start stages at multiples of more "
            "steps, or leave domains out."
        )
    counts = {name: max(1, int(share * block)) for name, share in shares.items()}
    spare = block - sum(counts.values())
    for name in sorted(shares, key=lambda name: counts[name] - shares[name] * block)[: max(0, spare)]:
        counts[name] += 1
    for _ in range(-spare):
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


def weights_for(counts: dict[str, int], block: int) -> dict[str, Decimal]:
    """Return weights that sum to exactly 1 and that Levanter turns into the counts.

    Where others come within a sequence of the largest count, what truncation leaves would go to one of them; then the
    largest gets one of theirs.
    """
    plain = shares_of({name: count / block for name, count in counts.items()})
    if levanter_counts(plain, block) == counts:
        return plain
    wanted = dict(counts)
    largest = max(wanted, key=lambda name: wanted[name])
    written = _from_above(wanted, largest, block)
    while levanter_counts(written, block) != wanted:
        second = max((name for name in wanted if name != largest), key=lambda name: wanted[name])
        wanted[largest] += 1
        wanted[second] -= 1
        written = _from_above(wanted, largest, block)
    return written


def levanter_counts(shares: Shares, block: int) -> dict[str, int]:
    """Return the sequences per block that Levanter makes of weights."""
    whole = sum(float(share) for share in shares.values())
    counts = {name: int(float(share) / whole * block) for name, share in shares.items()}
    largest = max(counts, key=lambda name: counts[name])
    counts[largest] += block - sum(counts.values())
    return counts


def _from_above(counts: dict[str, int], largest: str, block: int) -> dict[str, Decimal]:
    """Return weights just above the counts' shares, for all but the largest, which is left the rest."""
    units = 10**DECIMALS
    above = {name: count * units // block + 1 for name, count in counts.items()}
    above[largest] = units - sum(value for name, value in above.items() if name != largest)
    return {name: Decimal(value) / Decimal(units) for name, value in above.items()}


def _largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that makes a block of at most `most` sequences, all of 0's being so."""
    limit = max(1, min(LARGEST_BLOCK, most))
    return next(size for size in range(limit, 0, -1) if number % size == 0)
