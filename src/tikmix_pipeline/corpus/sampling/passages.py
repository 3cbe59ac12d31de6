"""Passages: long texts cut into pieces, at line starts where there are any, and never inside a character."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tikmix_pipeline.corpus.formats import complete
from tikmix_pipeline.corpus.sampling.places import Place, random_places
from tikmix_pipeline.corpus.sampling.sampled import Sampled, fill
from tikmix_pipeline.corpus.text import naming

PASSAGE_BYTES = 16_384
"""About the size of a passage."""
_REACH_BYTES = 4096
"""How far from where a passage could end the next line may begin."""
_WHOLE_SHARE = 1 / 64
"""A file of at most this share of the limit is one document, as where all is read."""


def largest_whole(limit_bytes: float) -> float:
    """Return the most bytes of a text file that is not cut into passages."""
    return max(_WHOLE_SHARE * limit_bytes, PASSAGE_BYTES)


def sample_plain_text(files: Sequence[Path], *, limit_bytes: float, generator: np.random.Generator) -> Sampled:
    """Sample small text files as they are, and passages of large ones; all of them are equally likely.

    Args:
        files: not compressed, in an order that does not depend on the machine.
        limit_bytes: most UTF-8 bytes of text.
        generator: decides.

    Raises:
        TikmixError: a passage that was drawn is not UTF-8; the message names its file and byte.
    """
    sizes = [path.stat().st_size for path in files]
    whole = largest_whole(limit_bytes)
    widths = [max(1, size) if size <= whole else PASSAGE_BYTES for size in sizes]
    places = random_places(files, widths, generator=generator)
    units = ((decode(*_passage(place)), place.end - place.start) for place in places)
    return fill(units, limit_bytes=limit_bytes, raw_total=sum(sizes))


def decode(data: bytes, path: Path, position: int) -> str:
    """Decode a passage that begins at byte `position` of a file's text.

    Raises:
        TikmixError: it is not UTF-8.
    """
    with naming(f"{path}, from byte {position} on,"):
        return data.decode("utf-8")


def _passage(place: Place) -> tuple[bytes, Path, int]:
    first = max(0, place.start - 1)
    with complete(place.path), place.path.open("rb") as stream:
        stream.seek(first)
        data = stream.read(place.end + _REACH_BYTES - first)
    start = _boundary(data, place.start - first) if place.start else 0
    end = _boundary(data, place.end - first) if place.end < place.size else len(data)
    return data[start:end], place.path, first + start


def _boundary(data: bytes | bytearray, at: int) -> int:
    """Return the first line start in reach from `at` > 0 on; else the first character start."""
    newline = data.find(b"\n", at - 1, at + _REACH_BYTES - 1)
    if newline >= 0:
        return newline + 1
    while at < len(data) and data[at] & 0xC0 == 0x80:  # inside a character
        at += 1
    return at


def passages_of(blocks: Iterable[bytes], whole_bytes: float) -> Iterator[tuple[int, bytes]]:
    """Yield (position, passage) of a stream of text: one passage where there are at most `whole_bytes`."""
    held = bytearray()
    position = 0
    is_long = False
    for block in blocks:
        held += block
        is_long = is_long or len(held) > whole_bytes
        begin = 0
        while is_long and len(held) - begin > PASSAGE_BYTES + _REACH_BYTES:
            # the bytes before `begin` are gone for good below, so `held` never holds more than a block and a passage
            end = _boundary(held, begin + PASSAGE_BYTES)
            yield position + begin, bytes(held[begin:end])
            begin = end
        del held[:begin]
        position += begin
    if held:
        yield position, bytes(held)
