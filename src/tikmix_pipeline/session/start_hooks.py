"""The hook that keeps Python from looking for cycles while a process starts.

Until its first node a run reads code and configuration and imports MLflow: a million objects, nearly all of which stay.
Python looks through them time and again for cycles that nobody holds, for a quarter of the processor time of a start.
"""

import gc

from kedro.framework.hooks import hook_impl


class StartHooks:
    """Looks for no cycles from the start of a process's first run to its first node.

    What is there by then is never looked through again. Without a node it ends with the run.
    """

    def __init__(self) -> None:
        self._has_begun = False
        self._is_starting = False

    def __enter__(self) -> None:
        """Begin, unless an earlier run of this process has, or its owner looks for no cycles anyway."""
        if not self._has_begun and gc.isenabled():
            gc.collect()  # what is garbage by now would never be found
            gc.disable()
            self._is_starting = True
        self._has_begun = True

    def __exit__(self, *_: object) -> None:
        """End, if no node has."""
        if self._is_starting:
            self._is_starting = False
            gc.freeze()
            gc.enable()

    @hook_impl(tryfirst=True)
    def before_node_run(self) -> None:
        """End before what takes memory."""
        self.__exit__()

    def close_as(self, status: str) -> None:
        """Hold nothing, and so close nothing."""


START = StartHooks()
