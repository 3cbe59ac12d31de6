"""Draws: which parts are read of a domain that is too large for all of them, and even samples of what is read.

Shards that cannot be entered in their middle are drawn in proportion to their size, by systematic sampling: laid end to
end in random order, with points at equal distances and a random start. A shard with several points is read once and
counts as often, so that each of its documents stands for

    weight = points in the shard / points expected in it

documents of the domain. Exact: the mean of every document's weight over all seeds is 1, however uneven the shards are,
and so is every weight where all shards are read. On average alone: one sample has only the shards that were drawn.

Files that can be entered anywhere are read at random places: pieces of them, none twice, found without reading what
lies between.

Of what is read `fill` takes a limited number of bytes from units in random order, and a `Reservoir` from a stream, of
which it looks at few units. Every unit has a random key, and those with the smallest keys are kept, up to the first
that overflows the limit. A unit whose key is above all kept ones is out for good, so the number of units to pass over
before the next candidate is drawn from its geometric distribution instead, as Algorithm L does for a limited number of
units (Li, 1994). A stream of n bytes has about limit (1 + ln(n / limit)) bytes of candidates. A unit that stands for
`weight` units has its key divided by it, and so is as many times as likely to stay.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tikmix_pipeline.progress import progress_bar

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


@dataclass(frozen=True)
class Sampled:
    """A sample of one domain, or of one part of it."""

    texts: list[str]
    """Documents in random order, so that any number of the first ones is an even sample, too."""
    total_bytes: float
    """UTF-8 bytes of all text it was drawn from, estimated where not all was read."""
    documents_seen: int
    """Those looked at, or counted and passed over."""
    is_size_known: bool = True
    """Whether `total_bytes` counts or estimates all of it; else it is what was read, and there is more."""


def size_of(text: str) -> int:
    """Count a text's UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def _is_blank(text: str) -> bool:
    """Return whether a document is left out, as whole reading does: for being empty or white space alone."""
    return not text or text.isspace()


def fill(units: Iterable[tuple[str, float]], *, limit_bytes: float, raw_total: float) -> Sampled:
    """Take texts up to the first that does not fit; at least one.

    Units are texts in random order, each with its share of what it was drawn from: bytes of a file, or rows.
    `raw_total` is all of that, in the same measure; so much text as the units hold of theirs, all of it is taken to
    hold.
    """
    texts: list[str] = []
    seen, read_raw, read_text, held = 0, 0.0, 0, 0
    with progress_bar("sample", int(limit_bytes), "B") as bar:
        for text, raw in units:
            size = size_of(text)
            seen, read_raw, read_text = seen + 1, read_raw + raw, read_text + size
            if _is_blank(text):
                continue
            if texts and held + size > limit_bytes:
                break
            texts.append(text)
            held += size
            bar.update(size)
    return Sampled(texts, raw_total * read_text / read_raw if read_raw else 0.0, seen)


def deal(parts: Sequence[Sampled], limit_bytes: float) -> list[Sampled]:
    """Cut every part to its share of the limit, in proportion to the text it was drawn from.

    A part of unknown size counts as much as the others do on average, and no less than was read of it. Parts that were
    cut before, to the shares among fewer of known size, are cut as if they had not been.
    """
    known = [part.total_bytes for part in parts if part.is_size_known]
    usual = sum(known) / len(known) if known else max((part.total_bytes for part in parts), default=0.0)
    sizes = [part.total_bytes if part.is_size_known else max(usual, part.total_bytes) for part in parts]
    total = sum(sizes)
    if len(parts) < 2 or not total:
        return list(parts)
    largest = int(np.argmax(sizes))
    return [
        replace(part, texts=list(_prefix(part.texts, limit_bytes * size / total, row == largest)))
        for row, (part, size) in enumerate(zip(parts, sizes, strict=True))
    ]


def _prefix(texts: Sequence[str], limit_bytes: float, at_least_one: bool) -> Iterator[str]:
    ends = itertools.accumulate(map(size_of, texts))
    for row, (text, end) in enumerate(zip(texts, ends, strict=True)):
        if end > limit_bytes and (row > 0 or not at_least_one):
            return
        yield text


def joined(parts: Sequence[Sampled]) -> Sampled:
    """Return the parts as one; of parts of two or more, the order is no longer random."""
    return Sampled(
        [text for part in parts for text in part.texts],
        sum(part.total_bytes for part in parts),
        sum(part.documents_seen for part in parts),
        all(part.is_size_known for part in parts),
    )


class Reservoir:
    """An even sample of a stream's units; `skip` of them are passed over before the next that is given to `add`."""

    def __init__(self, limit_bytes: float, generator: np.random.Generator):
        self.skip = 0
        self._limit_bytes = limit_bytes
        self._generator = generator
        self._heap: list[tuple[float, str, int]] = []
        self._held_bytes = 0
        self._weight = 1.0
        self._threshold = math.inf
        self._weighed_text = 0.0
        self._weighed_raw = 0.0

    @property
    def texts(self) -> list[str]:
        """The sample, in random order."""
        return [text for _, text, _ in sorted(self._heap, reverse=True)]

    @property
    def weight(self) -> float:
        """How many units each of those to come stands for; 1 unless it is set."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        if weight != self._weight:
            self._weight = weight
            # the geometric distribution has no memory: what was passed over already changes nothing
            self.skip = self._draw_skip()

    @property
    def text_share(self) -> float:
        """Bytes of text per raw byte, estimated from the candidates by their weight and how rare it was to be one."""
        return self._weighed_text / self._weighed_raw if self._weighed_raw else 0.0

    def passes_over(self) -> bool:
        """Return whether the next unit of the stream is passed over; else it must be given to `add`."""
        if self.skip:
            self.skip -= 1
            return True
        return False

    def add(self, text: str, raw_bytes: int) -> None:
        """Take the candidate that `skip` leads to (`raw_bytes` of the stream) unless it is blank; draw a new `skip`."""
        size = size_of(text)
        largest_key = min(self._threshold, 1 / self._weight)  # of a candidate of this weight
        self._weighed_text += size / largest_key
        self._weighed_raw += raw_bytes / largest_key
        if not _is_blank(text):
            heapq.heappush(self._heap, (-largest_key * self._generator.random(), text, size))
            self._held_bytes += size
            while len(self._heap) > 1 and self._held_bytes > self._limit_bytes:
                key, _, overflow = heapq.heappop(self._heap)
                self._held_bytes -= overflow
                self._threshold = -key
        self.skip = self._draw_skip()

    def _draw_skip(self) -> int:
        share = self._threshold * self._weight
        if share >= 1:
            return 0
        # 1 - random() is never 0
        return int(math.log(1 - self._generator.random()) / math.log1p(-share))
