"""JSON lines that are not compressed: small blocks at random places, and the lines that begin in them.

Every line begins in exactly one block, and all blocks are equally likely; so all lines are, however long they or their
neighbours are. (The line after a random byte would be drawn in proportion to the length of the one before it.)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tikmix_pipeline.corpus.formats import complete
from tikmix_pipeline.corpus.records import LONGEST_LINE_BYTES, parse_json_line, text_of, too_long
from tikmix_pipeline.corpus.sampling.places import Place, random_places
from tikmix_pipeline.corpus.sampling.sampled import Sampled, fill

_LARGEST_BLOCK_BYTES = 4096
_SMALLEST_BLOCK_BYTES = 256
_BLOCKS = 1024
"""How many blocks the limit is to come from, where they are neither too large nor too small."""


def sample_plain_lines(
    files: Sequence[Path], field: str, *, limit_bytes: float, generator: np.random.Generator
) -> Sampled:
    """Sample the records' texts.

    Args:
        files: JSON lines, not compressed, in an order that does not depend on the machine.
        field: of the record, which holds the text.
        limit_bytes: most UTF-8 bytes of text.
        generator: decides.

    Raises:
        TikmixError: a line that was drawn is no record with such a field, or longer than `LONGEST_LINE_BYTES`; the
            message names its file and byte.
    """
    width = int(min(max(limit_bytes / _BLOCKS, _SMALLEST_BLOCK_BYTES), _LARGEST_BLOCK_BYTES))
    places = random_places(files, [width] * len(files), generator=generator)
    units = (unit for place in places for unit in _units(place, field))
    return fill(units, limit_bytes=limit_bytes, raw_total=sum(path.stat().st_size for path in files))


def _units(place: Place, field: str) -> Iterator[tuple[str, float]]:
    for position, line in _lines_beginning_in(place):
        where = f"{place.path}, byte {position}"
        text = text_of(parse_json_line(line, where, position), field, where) if line.strip() else ""
        yield text, len(line)


def _lines_beginning_in(place: Place) -> Iterator[tuple[int, bytes]]:
    """Yield (position, line); the last may end behind the place."""
    with complete(place.path), place.path.open("rb") as stream:
        position = place.start
        if position > 0:
            # a line begins here where the byte before is a newline, and else after the next one
            stream.seek(position - 1)
            before = stream.readline(place.end - position + 1)
            if not before.endswith(b"\n"):
                return
            position += len(before) - 1
        while position < place.end and (line := stream.readline(LONGEST_LINE_BYTES + 1)):
            if len(line) > LONGEST_LINE_BYTES:
                raise too_long(f"{place.path}, byte {position}")
            yield position, line
            position += len(line)
