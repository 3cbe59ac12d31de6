"""`Sampled`: texts drawn evenly from something larger, and an estimate of how large it is."""

import itertools
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


def is_blank(text: str) -> bool:
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
            if is_blank(text):
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
    sizes = _sizes(parts)
    total = sum(sizes)
    if len(parts) < 2 or not total:
        return list(parts)
    largest = int(np.argmax(sizes))
    return [
        replace(part, texts=list(_prefix(part.texts, limit_bytes * size / total, row == largest)))
        for row, (part, size) in enumerate(zip(parts, sizes, strict=True))
    ]


def _sizes(parts: Sequence[Sampled]) -> list[float]:
    known = [part.total_bytes for part in parts if part.is_size_known]
    usual = sum(known) / len(known) if known else max((part.total_bytes for part in parts), default=0.0)
    return [part.total_bytes if part.is_size_known else max(usual, part.total_bytes) for part in parts]


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
