"""Draws: which shards are read of a domain that is too large for all of them, and how much of it each stands for.

Shards that cannot be entered in their middle are drawn in proportion to their size, by systematic sampling: laid end to
end in random order, with points at equal distances and a random start. A shard with several points is read once and
counts as often, so that each of its documents stands for

    weight = points in the shard / points expected in it

documents of the domain. Exact: the mean of every document's weight over all seeds is 1, however uneven the shards are,
and so is every weight where all shards are read. On average alone: one sample has only the shards that were drawn.

Files that can be entered anywhere are read at random places: pieces of them, none twice, found without reading what
lies between.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

READING_BUDGET_BYTES = 4e9
"""Most compressed bytes that are read of a domain, unless a shard alone has about as much."""
ENOUGH_DRAWS = 32
_ENOUGH_FOLD = 16
"""As many draws as are enough have at least this many times the limit together."""
_OVERDRAFT = 1.25
"""The budget is at least this many times the largest shard, for others to be read beside it."""


@dataclass(frozen=True)
class Draw:
    """A shard to be read, and how many documents of the domain each of its documents stands for."""

    shard: int
    weight: float


def draw_shards(
    sizes: Sequence[int],
    *,
    limit_bytes: float,
    generator: np.random.Generator,
    weights: Sequence[float] | None = None,
    draws: int = ENOUGH_DRAWS,
    budget_bytes: float = np.inf,
) -> list[Draw]:
    """Draw shards in proportion to their sizes: all of a few or of little, else by as many points as the budget allows.

    Small shards are drawn in bundles of at least half the limit (for 32 draws), since one that is smaller than its
    share of the limit could not give it.

    Args:
        sizes: bytes to be read, by shard.
        limit_bytes: how much text is wanted.
        generator: decides.
        weights: the weights of an earlier pass of drawing; the sizes count as often.
        draws: the most points.
        budget_bytes: the most to be read, whatever the points hit; a quarter more than the largest shard where that is
            more.
    """
    order = [int(shard) for shard in generator.permutation(len(sizes))]
    weights = [1.0] * len(sizes) if weights is None else weights
    enough = _ENOUGH_FOLD * limit_bytes
    if sum(sizes) <= budget_bytes and (len(sizes) <= draws or sum(sizes) <= enough):
        return [Draw(shard, weights[shard]) for shard in order]
    bundles = list(_bundles(order, sizes, min(enough, budget_bytes) / draws))
    costs = np.array([sum(sizes[shard] for shard in bundle) for bundle in bundles], dtype=float)
    shares = np.array([sum(sizes[shard] * weights[shard] for shard in bundle) for bundle in bundles])
    shares /= shares.sum()
    most = max(budget_bytes, _OVERDRAFT * costs.max())
    points = next((points for points in range(draws, 1, -1) if _most_read(costs, points * shares) <= most), 1)
    expected = points * shares
    found = _points_in(expected, generator)
    return [
        Draw(shard, float(weights[shard] * found[number] / expected[number]))
        for number in np.flatnonzero(found)
        for shard in bundles[number]
    ]


def _bundles(order: Iterable[int], sizes: Sequence[int], least_bytes: float) -> Iterator[list[int]]:
    """Yield successive shards that have the least together; those left over go with the last ones that have it."""
    whole: list[int] = []
    begun: list[int] = []
    size = 0
    for shard in order:
        begun.append(shard)
        size += sizes[shard]
        if size >= least_bytes:
            if whole:
                yield whole
            whole, begun, size = begun, [], 0
    yield whole + begun


def _most_read(costs: np.ndarray, expected: np.ndarray) -> float:
    """Return the most that may be read: what is sure to have a point, and the largest of the rest, one a point left."""
    sure = np.floor(expected)
    left = round(float(expected.sum() - sure.sum()))
    return float(costs[sure > 0].sum() + np.sort(costs[sure == 0])[::-1][:left].sum())


def _points_in(expected: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return how many points fall into each piece, of a row of them with distance 1 and a random start."""
    ends = np.cumsum(expected)
    total = round(float(ends[-1]))
    ends = np.append(np.minimum(ends[:-1], total), total)  # no point is lost to rounding
    return np.diff(np.ceil(ends - generator.random()), prepend=0).astype(int)


_SHUFFLED_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Place:
    """Bytes `start` to `end` of a file of `size` bytes."""

    path: Path
    size: int
    start: int
    end: int


def random_places(files: Sequence[Path], widths: Sequence[int], *, generator: np.random.Generator) -> Iterator[Place]:
    """Yield all places in random order: files are cut at multiples of their width, and all pieces are equally likely.

    Whoever takes them stops when there is enough: how many places hold a text is not known before. `widths` are the
    bytes of a piece, by file.
    """
    sizes = [path.stat().st_size for path in files]
    ends = np.cumsum([-(-size // width) for size, width in zip(sizes, widths, strict=True)])
    for index in shuffled(int(ends[-1]), generator):
        file = int(np.searchsorted(ends, index, side="right"))
        width, size = widths[file], sizes[file]
        start = width * (index - (int(ends[file - 1]) if file else 0))
        yield Place(files[file], size, start, min(start + width, size))


def shuffled(count: int, generator: np.random.Generator) -> Iterator[int]:
    """Yield the numbers below `count` in random order, a part of them at a time, so that billions take no memory.

    Of up to 65,536 numbers all orders are equally likely. More go by the remainder of a division: all numbers with one,
    which lie at equal distances, and then all with another. Every number is equally likely at every position.
    """
    rounds = -(-count // _SHUFFLED_AT_ONCE)
    for remainder in generator.permutation(rounds):
        numbers = np.arange(remainder, count, rounds)
        yield from generator.permutation(numbers).tolist()
