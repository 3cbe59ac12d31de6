"""`dictd`: dictionaries of the DICT server, a `.index` of places in a (compressed) `.dict`.

A line of the index is a headword, an offset and a length, the numbers in base 64, most significant digit first.
"""

import string
from collections.abc import Iterator
from pathlib import PurePosixPath

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import decode_leniently, grouped
from tikmix_pipeline.errors import TikmixError

_GROUP_CHARACTERS = 2000
_DIGITS = {digit: value for value, digit in enumerate(string.ascii_uppercase + string.ascii_lowercase + "0123456789+/")}


def read_dictd(files: Files, _field: str | None) -> Iterator[str]:
    """Join the entries of a dictionary, in the order of its index, to documents of about a page."""
    contents = {PurePosixPath(name).name: data for name, data in files}
    indices = [name for name in contents if name.endswith(".index")]
    if not indices:
        raise TikmixError(f"expected a .index and a .dict file, found {', '.join(contents)}. Widen `members`.")
    for name in indices:
        stem = name.removesuffix(".index")
        data = contents.get(f"{stem}.dict") or contents.get(f"{stem}.dict.dz")
        if data is None:
            raise TikmixError(f"{name} comes without {stem}.dict or {stem}.dict.dz. Widen `members`.")
        entries = (decode_leniently(entry) for entry in _entries(contents[name], data, name))
        yield from grouped(entries, _GROUP_CHARACTERS)


def _entries(index: bytes, data: bytes, name: str) -> Iterator[bytes]:
    """Yield every entry once, whatever the number of its headwords; those about the dictionary itself are left out."""
    seen: set[int] = set()
    for number, line in enumerate(index.decode("utf-8", errors="replace").splitlines(), start=1):
        word, *places = line.split("\t")[:3]
        if len(places) < 2 or not all(map(_is_number, places)):
            raise TikmixError(
                f"{name}, line {number}: expected a headword, an offset and a length in base 64 with tabs between "
                "them. Narrow `members`, or choose another `reader`."
            )
        start, length = map(_number, places)
        if start not in seen and not word.startswith("00"):
            seen.add(start)
            yield data[start : start + length]


def _is_number(digits: str) -> bool:
    return bool(digits) and all(digit in _DIGITS for digit in digits)


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value
