"""Ctrl-C while no run is under way, as while libraries are imported: one line in the place of a traceback.

Importing this is enough, so that it can stand before the other imports of Kedro's settings, which take a second or two.
While a run is under way its session answers Ctrl-C. The process ends by the signal, as Python has it, whatever is told.
"""

import sys
from types import TracebackType


def tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Tell what nothing has caught: Ctrl-C in one line, all else as Python does."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\nError: Interrupted while no run was under way.\n")
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = tell
