"""How a run behaves on the command line: it makes what is missing, and tells a user's mistake in one message.

Ctrl-C and the signals that end jobs (SIGTERM of Slurm and Kubernetes, SIGHUP of a closed terminal) close the run as
killed; the exit code is that of shells, 128 and the signal.
"""

import contextlib
import functools
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import click
import yaml
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.project import settings
from kedro.framework.session import KedroSession

from tikmix_pipeline.errors import TikmixError, causes_of
from tikmix_pipeline.files import disk_trouble
from tikmix_pipeline.session.start_hooks import START
from tikmix_pipeline.signals import ENDING

_NODES = "`kedro registry describe PIPELINE` lists the nodes of a pipeline, their inputs and outputs."
_NOT_THERE = {
    "Failed to find the pipeline": "`kedro registry list` lists the names.",
    "Pipeline does not contain": _NODES,
    "Pipeline contains no nodes": _NODES,
}
"""How Kedro's errors begin about names on the command line that it does not know, and what helps."""

_OF_PROGRAMMERS = re.compile(r" It needs to be generated[^.]*\.| Please ensure that [^.]*\.")
"""What they say to those who write pipelines."""


class UserError(click.ClickException):
    """A `TikmixError` for the command line, which prints it without a traceback."""


class RunInterruptedError(UserError):
    """A run that Ctrl-C or a signal has ended."""

    def __init__(self, exit_code: int) -> None:
        by = "" if exit_code == 128 + signal.SIGINT else f" by {signal.Signals(exit_code - 128).name}"
        super().__init__(
            f"Interrupted{by}. What is finished is kept, and of a chunk or a measurement under way what was last "
            "saved: the same command goes on from there."
        )
        self.exit_code = exit_code  # type: ignore[misc]  # of the class, for click


class TikmixSession(KedroSession):
    """A session whose runs skip what is already made from the same things.

    Naming nodes, tags, namespaces or datasets runs these without asking what is there.
    """

    @functools.cached_property
    def _context(self) -> KedroContext:
        try:
            return super().load_context()
        except Exception as error:
            _raise_told(error)

    def load_context(self) -> KedroContext:
        """Load the context, once for those who ask before the run; a mistake in the parameters ends here."""
        return self._context

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run pipelines, by default only the nodes whose outputs are missing or stale."""
        selected = ("tags", "node_names", "from_nodes", "to_nodes", "from_inputs", "to_outputs", "namespaces")
        if not any(kwargs.get(name) for name in selected):
            kwargs["only_missing_outputs"] = True
        with START, _signals_as_exits() as received:
            try:
                return super().run(*args, **kwargs)
            except (KeyboardInterrupt, SystemExit) as error:
                code = error.code if isinstance(error, SystemExit) else 128 + signal.SIGINT
                if code not in {128 + number for number in ENDING}:
                    raise
                _end_hooks("KILLED")
                raise RunInterruptedError(code) from None
            except Exception as error:
                if received:  # a library has made an error of its own out of the exit
                    _end_hooks("KILLED")
                    raise RunInterruptedError(128 + received[0]) from error
                # Kedro tells its hooks of an error in a node, not of one before the first
                _end_hooks("FAILED")
                _raise_told(error)


@contextlib.contextmanager
def _signals_as_exits() -> Iterator[list[int]]:
    """Let the signals that end jobs unwind this process as `sys.exit` does, unless a handler is there already.

    Yields the signals that came, Ctrl-C's among them.
    """
    is_main = threading.current_thread() is threading.main_thread()  # no other may set any
    usual = {**dict.fromkeys(ENDING, signal.SIG_DFL), signal.SIGINT: signal.default_int_handler}
    taken = {number: handler for number, handler in usual.items() if is_main and signal.getsignal(number) is handler}
    received: list[int] = []

    def end(number: int, _frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield received
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _end_hooks(status: str) -> None:
    """Close what hooks hold; a signal that is sent again meanwhile, as Slurm does, is not to stop that."""
    before = {}
    if status == "KILLED" and threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING if number != signal.SIGINT}
    for hook in reversed(settings.HOOKS):  # the lock, which was taken first, is given free last
        hook.close_as(status)
    for number, handler in before.items():
        signal.signal(number, handler)


def _raise_told(error: Exception) -> NoReturn:
    """Raise a user's mistake as an error that is shown without a traceback, any other error as it is."""
    for cause in causes_of(error):
        if isinstance(cause, UserError):
            raise cause from (None if cause is error else error)
        message = _told(cause)
        if message is not None:
            raise UserError(message) from error
    raise error


def _told(cause: BaseException) -> str | None:
    """Return what a user is told of an error, if it is for him to mend."""
    if isinstance(cause, TikmixError):
        return str(cause)
    if isinstance(cause, MissingConfigException | yaml.YAMLError):
        return f"The configuration cannot be read: {cause}"
    if isinstance(cause, ValueError):
        remedy = next((remedy for start, remedy in _NOT_THERE.items() if str(cause).startswith(start)), None)
        said = _OF_PROGRAMMERS.sub("", str(cause)).strip().rstrip(".")
        return None if remedy is None else f"{said}{'' if said.endswith('?') else '.'} {remedy}"
    return disk_trouble(cause)
