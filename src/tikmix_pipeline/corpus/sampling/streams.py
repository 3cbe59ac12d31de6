"""Compressed files: some of them at random, each read through once, and an even sample of what comes by.

A compressed file cannot be entered in its middle, so what is read is bounded by the number of files. Of their lines
only those that may stay are looked at; the others are counted.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tikmix_pipeline.corpus.formats import read_blocks
from tikmix_pipeline.corpus.records import LONGEST_LINE_BYTES, parse_json_line, text_of, too_long
from tikmix_pipeline.corpus.sampling.draws import draw_shards
from tikmix_pipeline.corpus.sampling.passages import decode, largest_whole, passages_of
from tikmix_pipeline.corpus.sampling.reservoir import Reservoir
from tikmix_pipeline.corpus.sampling.sampled import Sampled
from tikmix_pipeline.progress import progress_bar


def sample_streams(
    files: Sequence[Path],
    field: str | None,
    *,
    limit_bytes: float,
    budget_bytes: float,
    generator: np.random.Generator,
) -> Sampled:
    """Sample compressed files, drawn in proportion to their size where there are too many to read (see `draws`).

    Args:
        files: all of one format, in an order that does not depend on the machine.
        field: of the record, which holds the text; `None` where the files are text themselves.
        limit_bytes: most UTF-8 bytes of text; memory is bounded by it.
        budget_bytes: most compressed bytes to be read.
        generator: decides.

    Raises:
        TikmixError: a chosen file cannot be read to its end, or holds something other than text; the message names it.
    """
    sizes = [path.stat().st_size for path in files]
    drawn = draw_shards(sizes, limit_bytes=limit_bytes, budget_bytes=budget_bytes, generator=generator)
    reservoir = Reservoir(limit_bytes, generator)
    documents, raw_bytes = 0, 0.0
    with progress_bar("sample", sum(sizes[draw.shard] for draw in drawn), "B") as bar:
        for draw in drawn:
            path, reservoir.weight = files[draw.shard], draw.weight
            blocks = read_blocks(path, bar)
            if field is None:
                read = offer_passages(blocks, path, largest_whole(limit_bytes), reservoir)
            else:
                read = offer_lines(blocks, str(path), field, reservoir)
            documents, raw_bytes = documents + read[0], raw_bytes + draw.weight * read[1]
    return Sampled(reservoir.texts, raw_bytes * reservoir.text_share, documents)


def offer_passages(blocks: Iterable[bytes], path: Path, whole_bytes: float, reservoir: Reservoir) -> tuple[int, int]:
    """Offer the passages of one text; return how many there are, and their bytes."""
    count = size = 0
    for position, passage in passages_of(blocks, whole_bytes):
        reservoir.offer(lambda data=passage, at=position: decode(data, path, at), len(passage))  # type: ignore[misc]
        count, size = count + 1, size + len(passage)
    return count, size


def offer_lines(blocks: Iterable[bytes], where: str, field: str, reservoir: Reservoir) -> tuple[int, int]:
    """Offer the records of one stream of JSON lines; return how many lines there are, and their bytes.

    Args:
        blocks: the text in pieces that need not end where lines do; no more than one of them, and the beginning of a
            line that may stay, are held.
        where: the file, for errors.
        field: of the record, which holds the text.
        reservoir: takes them.

    Raises:
        TikmixError: a line that may stay is no record with such a field, or longer than `LONGEST_LINE_BYTES`.
    """
    begun: list[bytes] = []  # of the line that may stay and that goes on in the next block
    begun_bytes = 0
    number = position = 0  # of the line that a block begins in; of the block
    wanted = reservoir.skip
    is_open = False
    for block in blocks:
        # three times as fast as bytes.count where lines are some kB long
        newlines = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
        count = len(newlines)
        while wanted < number + count:
            row = wanted - number
            start = int(newlines[row - 1]) + 1 if row else 0
            line = b"".join([*begun, block[start : int(newlines[row]) + 1]])
            _add_line(line, f"{where}, line {wanted + 1}", position + start - begun_bytes, field, reservoir)
            begun, begun_bytes = [], 0
            wanted += 1 + reservoir.skip
        if wanted == number + count:
            begun.append(block[int(newlines[-1]) + 1 if count else 0 :])
            begun_bytes += len(begun[-1])
            if begun_bytes > LONGEST_LINE_BYTES:
                raise too_long(f"{where}, line {wanted + 1}")
        number += count
        position += len(block)
        is_open = not block.endswith(b"\n")
    if is_open:
        if wanted == number:
            _add_line(b"".join(begun), f"{where}, line {number + 1}", position - begun_bytes, field, reservoir)
            wanted += 1 + reservoir.skip
        number += 1
    reservoir.skip = wanted - number
    return number, position


def _add_line(line: bytes, place: str, position: int, field: str, reservoir: Reservoir) -> None:
    text = text_of(parse_json_line(line, place, position), field, place) if line.strip() else ""
    reservoir.add(text, len(line))
