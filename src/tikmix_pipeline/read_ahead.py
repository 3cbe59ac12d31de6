"""Items of an iterator made by another thread, one ahead of whoever uses them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_END = object()


def read_ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items in their order, while a thread already makes the next one.

    It pays where making an item and using one both leave the interpreter, as reading a file and a product do. Two items
    live at a time. What making one raises is raised here.
    """
    source = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, source, _END)
            yield item  # type: ignore[misc]  # not the end
