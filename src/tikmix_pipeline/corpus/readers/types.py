"""What a reader takes and gives."""

from collections.abc import Callable, Iterable, Iterator

Files = Iterable[tuple[str, bytes]]
"""(name, bytes) of one file after the other, in the order of their names."""

Reader = Callable[[Files, str | None], Iterator[str]]
"""From files, and the record's field that holds the text, to documents."""
