"""`rdata`: long texts in the lazy-load file (`.rdb`) of an R package.

Such a file is a row of compressed R objects. A text is a vector of strings, one per line, each of which stands in the
serialised object as a header that ends in `00 09`, its length in four bytes and its characters.
"""

import re
import zlib
from collections.abc import Iterator

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import decode_leniently, slices

_MIN_TEXT_CHARACTERS = 100_000
_SLICE_CHARACTERS = 8_000
_MAX_LINE_BYTES = 2000
_LENGTH_BYTES = 4
_ZLIB_HEADERS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def read_rdata(files: Files, _field: str | None) -> Iterator[str]:
    """Cut every text of a package into slices of a few pages."""
    for _, data in files:
        beginnings: set[str] = set()
        for serialised in _objects(data):
            text = "\n".join(_strings(serialised))
            beginning = text[:500]
            if len(text) > _MIN_TEXT_CHARACTERS and beginning not in beginnings:
                beginnings.add(beginning)
                yield from slices(text, _SLICE_CHARACTERS)


def _objects(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + _LENGTH_BYTES < len(data):
        start = position + _LENGTH_BYTES
        length = int.from_bytes(data[position:start], "big")
        position += 1
        if data[start : start + 2] in _ZLIB_HEADERS:
            stream = zlib.decompressobj()
            try:
                serialised = stream.decompress(data[start:])
            except zlib.error:
                continue
            if stream.eof and len(serialised) == length:
                yield serialised
                position = len(data) - len(stream.unused_data)


def _strings(serialised: bytes) -> Iterator[str]:
    position = 0
    for header in re.finditer(rb"\x00\x09(?=....)", serialised, re.DOTALL):
        if header.start() < position:
            continue
        start = header.end() + _LENGTH_BYTES
        length = int.from_bytes(serialised[header.end() : start], "big", signed=True)
        if 0 <= length < _MAX_LINE_BYTES:
            position = start + length
            yield decode_leniently(serialised[start:position])
