"""Even samples of a limited number of bytes: `fill` from units in random order, `Reservoir` from a stream.

A `Reservoir` looks at few units of a stream of unknown length. Every unit has a random key, and those with the smallest
keys are kept, up to the first that overflows the limit. A unit whose key is above all kept ones is out for good, so the
number of units to pass over before the next candidate is drawn from its geometric distribution instead, as Algorithm L
does for a limited number of units (Li, 1994). A stream of n bytes has about limit (1 + ln(n / limit)) bytes of
candidates. A unit that stands for `weight` units has its key divided by it, and so is as many times as likely to stay.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tikmix_pipeline.progress import progress_bar


@dataclass(frozen=True)
class Sampled:
    """A sample of one domain, or of one part of it.

    Attributes:
        texts: documents in random order, so that any number of the first ones is an even sample, too.
        total_bytes: UTF-8 bytes of all text it was drawn from, estimated where not all was read.
        documents_seen: documents looked at, or counted and passed over.
        is_size_known: `total_bytes` counts or estimates all of it; else it is what was read, and there is more.
    """

    texts: list[str]
    total_bytes: float
    documents_seen: int
    is_size_known: bool = True


def size_of(text: str) -> int:
    """Return a text's UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def _is_blank(text: str) -> bool:
    """Return whether a document is left out, as whole reading does: for being empty or white space alone."""
    return not text or text.isspace()


def fill(units: Iterable[tuple[str, float]], *, limit_bytes: float, raw_total: float) -> Sampled:
    """Take texts up to the first that does not fit; at least one.

    Args:
        units: texts in random order, each with its share of what it was drawn from: bytes of a file, or rows.
        limit_bytes: most UTF-8 bytes to take.
        raw_total: all that the units are drawn from, in the same measure; so much text as the units hold of theirs, all
            of it is taken to hold.
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
    """An even sample of a stream's units; holds the sample and nothing else.

    Attributes:
        skip: how many units to pass over before the one that must be given to `add`.
    """

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
        """Take the candidate that `skip` leads to, unless it is blank, and draw how far the next one is.

        `raw_bytes` is what it takes in the stream.
        """
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
