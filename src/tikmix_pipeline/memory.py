"""Memory that a process has freed and its C library has kept: it counts as the process's own until it is given back."""

import ctypes
import gc
import sys


def give_back_memory() -> None:
    """Give freed memory back to the system, where the C library can do that; elsewhere nothing happens.

    Text is prepared in millions of small pieces, whose pages glibc keeps for more of them. Tensors never use those.
    """
    gc.collect()
    give_back_freed_memory()


def give_back_freed_memory() -> None:
    """Do the same without a look for cycles of objects that nobody holds, which takes the longer the more there are."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
