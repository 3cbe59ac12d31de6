"""How a run behaves on the command line: it makes what is missing, and tells a user's mistake in one message."""

import errno
import functools
import signal
from typing import Any

import click
import yaml
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.project import settings
from kedro.framework.session import KedroSession

from tikmix_pipeline.errors import TikmixError, causes_of


class UserError(click.ClickException):
    """A `TikmixError` for the command line, which prints it without a traceback."""


class RunInterruptedError(UserError):
    """Ctrl-C, with the exit code that shells give it."""

    exit_code = 128 + signal.SIGINT

    def __init__(self) -> None:
        super().__init__(
            "Interrupted. What is finished is kept, and of a chunk or a measurement under way what was last saved: the "
            "same command goes on from there."
        )


class TikmixSession(KedroSession):
    """A session whose runs skip what is already made from the same things.

    Naming nodes, tags, namespaces or datasets runs these without asking what is there.
    """

    @functools.cached_property
    def _context(self) -> KedroContext:
        try:
            return super().load_context()
        except Exception as error:
            raise _told(error) from error

    def load_context(self) -> KedroContext:
        """Load the context, once for those who ask before the run; a mistake in the parameters ends here."""
        return self._context

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run pipelines, by default only the nodes whose outputs are missing or stale."""
        selected = ("tags", "node_names", "from_nodes", "to_nodes", "from_inputs", "to_outputs", "namespaces")
        if not any(kwargs.get(name) for name in selected):
            kwargs["only_missing_outputs"] = True
        try:
            return super().run(*args, **kwargs)
        except KeyboardInterrupt:
            _end_hooks("KILLED")
            raise RunInterruptedError from None
        except Exception as error:
            # Kedro tells its hooks of an error in a node, not of one before the first
            _end_hooks("FAILED")
            raise _told(error) from error


def _end_hooks(status: str) -> None:
    for hook in settings.HOOKS:
        hook.close_as(status)


def _told(error: Exception) -> Exception:
    """Return a user's mistake as an error that is shown without a traceback, any other error as it is."""
    for cause in causes_of(error):
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, TikmixError):
            return UserError(str(cause))
        if isinstance(cause, MissingConfigException | yaml.YAMLError):
            return UserError(f"The configuration cannot be read: {cause}")
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return UserError(
                f"The disk is full ({cause.filename or 'while writing'}). What is finished is kept: free some space "
                "and run the same command again."
            )
        if isinstance(cause, ValueError) and str(cause).startswith("Failed to find the pipeline"):
            return UserError(str(cause))
    return error
