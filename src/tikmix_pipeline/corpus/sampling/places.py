"""Places: random pieces of files, none twice, found without reading what lies between."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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

    Whoever takes them stops when there is enough: how many places hold a text is not known before.

    Args:
        files: in an order that does not depend on the machine.
        widths: bytes of a piece, by file.
        generator: decides.
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
