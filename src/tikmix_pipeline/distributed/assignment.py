"""Pieces of unequal work shared out over processes."""

from collections.abc import Sequence

import numpy as np


def share_out(costs: Sequence[float], count: int) -> list[int]:
    """Name a process for every piece: the dearest first, each to the process that has least so far.

    The busiest has at most a third more than in the best of all ways, or one piece alone (Graham 1969).

    Args:
        costs: of the pieces, in any unit.
        count: of processes.
    """
    loads = np.zeros(count)
    owners = [0] * len(costs)
    for piece in sorted(range(len(costs)), key=lambda piece: (-costs[piece], piece)):
        owners[piece] = int(loads.argmin())
        loads[owners[piece]] += costs[piece]
    return owners
