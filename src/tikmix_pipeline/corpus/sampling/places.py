"""Places: random pieces of files, none twice, found without reading what lies between."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_SPARE = 16


@dataclass(frozen=True)
class Place:
    """Bytes `start` to `end` of a file of `size` bytes."""

    path: Path
    size: int
    start: int
    end: int


def random_places(
    files: Sequence[Path], widths: Sequence[int], *, limit_bytes: float, generator: np.random.Generator
) -> Iterator[Place]:
    """Yield places in random order: files are cut at multiples of their width, and all pieces are equally likely.

    There are places for many times the limit, since they may hold little text; of a smaller domain there are all.

    Args:
        files: in an order that does not depend on the machine.
        widths: bytes of a piece, by file.
        limit_bytes: how much text is wanted.
        generator: decides.
    """
    sizes = [path.stat().st_size for path in files]
    ends = np.cumsum([-(-size // width) for size, width in zip(sizes, widths, strict=True)])
    count = int(ends[-1])
    # by the mean size of a piece: one tiny file must not make places of all the others
    wanted = _SPARE * (16 + limit_bytes * count / max(1, sum(sizes)))
    for index in generator.choice(count, int(min(count, wanted)), replace=False) if count else ():
        file = int(np.searchsorted(ends, index, side="right"))
        width, size = widths[file], sizes[file]
        start = width * (int(index) - (int(ends[file - 1]) if file else 0))
        yield Place(files[file], size, start, min(start + width, size))


def random_rows(count: int, *, limit_bytes: float, generator: np.random.Generator) -> Iterator[int]:
    """Yield random rows of `count`, none twice; enough of them for `limit_bytes` where rows are not tiny."""
    wanted = count if not np.isfinite(limit_bytes) else int(limit_bytes / 64) + 1024
    yield from map(int, generator.choice(count, min(count, wanted), replace=False))
