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
    wanted = _SPARE * int(limit_bytes / min(widths) + 16) if np.isfinite(limit_bytes) else int(ends[-1])
    for index in generator.choice(ends[-1], min(int(ends[-1]), wanted), replace=False) if ends[-1] else ():
        file = int(np.searchsorted(ends, index, side="right"))
        width, size = widths[file], sizes[file]
        start = width * (int(index) - (int(ends[file - 1]) if file else 0))
        yield Place(files[file], size, start, min(start + width, size))


def random_rows(count: int, *, limit_bytes: float, generator: np.random.Generator) -> Iterator[int]:
    """Yield random rows of `count`, none twice; enough of them for `limit_bytes` where rows are not tiny."""
    wanted = count if not np.isfinite(limit_bytes) else int(limit_bytes / 64) + 1024
    yield from map(int, generator.choice(count, min(count, wanted), replace=False))
