"""Text and JSON lines, sampled at random places of plain files and evenly from compressed ones, which are read through.

*Text* that is long is cut into passages, at line starts where there are any, and never inside a character.

Of plain *JSON lines* small blocks are read at random places, and the lines that begin in them. Every line begins in
exactly one block, and all blocks are equally likely; so all lines are, however long they or their neighbours are. (The
line after a random byte would be drawn in proportion to the length of the one before it.)

A *compressed* file cannot be entered in its middle, so what is read is bounded by the number of files. Of their lines
only those that may stay are looked at; the others are counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tikmix_pipeline.corpus.formats import complete, read_blocks
from tikmix_pipeline.corpus.local_files import Reading
from tikmix_pipeline.corpus.sampling.draws import Place, Reservoir, Sampled, draw_shards, fill, random_places
from tikmix_pipeline.corpus.text import LONGEST_LINE_BYTES, decode_file, is_blank, parse_json_line, too_long
from tikmix_pipeline.progress import progress_bar

PASSAGE_BYTES = 16_384
"""About the size of a passage."""
_REACH_BYTES = 4096
"""How far from where a passage could end the next line may begin."""
_WHOLE_SHARE = 1 / 64
"""A file of at most this share of the limit is one document, as where all is read."""

_LARGEST_BLOCK_BYTES = 4096
_SMALLEST_BLOCK_BYTES = 256
_BLOCKS = 1024
"""How many blocks the limit is to come from, where they are neither too large nor too small."""


def sample_plain_text(
    files: Sequence[Path], *, limit_bytes: float, generator: np.random.Generator, reading: Reading
) -> Sampled:
    """Sample small text files as they are, and passages of large ones; all of them are equally likely.

    Raises:
        TikmixError: a passage that was drawn is not UTF-8; the message names its file and byte.
    """
    sizes = [path.stat().st_size for path in files]
    whole = _largest_whole(limit_bytes)
    widths = [max(1, size) if size <= whole else PASSAGE_BYTES for size in sizes]
    places = random_places(files, widths, generator=generator)
    units = (unit for place in places for unit in reading.up_to_damage(place.path, _passage_at(place)))
    return fill(units, limit_bytes=limit_bytes, raw_total=sum(sizes))


def sample_plain_lines(
    files: Sequence[Path], field: str, *, limit_bytes: float, generator: np.random.Generator, reading: Reading
) -> Sampled:
    """Sample the texts that records of JSON lines hold in a field.

    Raises:
        TikmixError: a line that was drawn is no record with such a field, or longer than `LONGEST_LINE_BYTES`; the
            message names its file and byte.
    """
    width = int(min(max(limit_bytes / _BLOCKS, _SMALLEST_BLOCK_BYTES), _LARGEST_BLOCK_BYTES))
    places = random_places(files, [width] * len(files), generator=generator)
    lines = ((place, _lines_beginning_in(place, field, reading)) for place in places)
    units = (unit for place, read in lines for unit in reading.up_to_damage(place.path, read))
    return fill(units, limit_bytes=limit_bytes, raw_total=sum(path.stat().st_size for path in files))


def sample_streams(
    files: Sequence[Path],
    field: str | None,
    *,
    limit_bytes: float,
    budget_bytes: float,
    generator: np.random.Generator,
    reading: Reading,
) -> Sampled:
    """Sample compressed files, drawn in proportion to their size where there are too many to read (see `draws.py`).

    They hold records with a field of text or, where that is None, are text themselves.

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
            with reading.noting(path):
                if field is None:
                    read = _offer_passages(blocks, path, _largest_whole(limit_bytes), reservoir)
                else:
                    read = offer_lines(blocks, str(path), field, reservoir, reading)
                documents, raw_bytes = documents + read[0], raw_bytes + draw.weight * read[1]
    return Sampled(reservoir.texts, raw_bytes * reservoir.text_share, documents)


def _largest_whole(limit_bytes: float) -> float:
    """Return the most bytes of a text file that is not cut into passages."""
    return max(_WHOLE_SHARE * limit_bytes, PASSAGE_BYTES)


def _passage_at(place: Place) -> Iterator[tuple[str, int]]:
    """Yield (text, bytes of the file) of one passage."""
    first = max(0, place.start - 1)
    with complete(place.path), place.path.open("rb") as stream:
        stream.seek(first)
        data = stream.read(place.end + _REACH_BYTES - first)
    start = _boundary(data, place.start - first) if place.start else 0
    end = _boundary(data, place.end - first) if place.end < place.size else len(data)
    yield decode_file(data[start:end], f"{place.path}, from byte {first + start} on,"), place.end - place.start


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


def _offer_passages(blocks: Iterable[bytes], path: Path, whole_bytes: float, reservoir: Reservoir) -> tuple[int, int]:
    """Offer the passages of one text; return how many there are, and their bytes."""
    count = size = 0
    for position, passage in passages_of(blocks, whole_bytes):
        if not reservoir.passes_over():
            reservoir.add(decode_file(passage, f"{path}, from byte {position} on,"), len(passage))
        count, size = count + 1, size + len(passage)
    return count, size


def _lines_beginning_in(place: Place, field: str, reading: Reading) -> Iterator[tuple[str, int]]:
    """Yield (text, bytes of the line) of the records that begin in a place; the last may end behind it."""
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
            where = f"{place.path}, byte {position}"
            if len(line) > LONGEST_LINE_BYTES:
                raise too_long(where)
            yield _text_of_line(line, where, position, field, reading), len(line)
            position += len(line)


def _text_of_line(line: bytes, where: str, position: int, field: str, reading: Reading) -> str:
    return "" if is_blank(line) else reading.text_of(parse_json_line(line, where, position), field, where)


def offer_lines(
    blocks: Iterable[bytes], where: str, field: str, reservoir: Reservoir, reading: Reading
) -> tuple[int, int]:
    """Offer the records of one stream of JSON lines to a reservoir; return how many lines there are, and their bytes.

    The blocks need not end where lines do; no more than one of them, and the beginning of a line that may stay, are
    held.

    Raises:
        TikmixError: a line that may stay is no record with such a field, or longer than `LONGEST_LINE_BYTES`.
    """

    def add(line: bytes, start: int) -> int:
        """Add line number `wanted`, which begins at byte `start`; return the number of the next one that may stay."""
        reservoir.add(_text_of_line(line, f"{where}, line {wanted + 1}", start, field, reading), len(line))
        return wanted + 1 + reservoir.skip

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
            wanted = add(line, position + start - begun_bytes)
            begun, begun_bytes = [], 0
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
            wanted = add(b"".join(begun), position - begun_bytes)
        number += 1
    reservoir.skip = wanted - number
    return number, position
