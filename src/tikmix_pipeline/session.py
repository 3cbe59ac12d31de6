"""How a run behaves on the command line: it makes what is missing, and tells a user's mistake in one message."""

from typing import Any

import click
from kedro.framework.context import KedroContext
from kedro.framework.session import KedroSession

from tikmix_pipeline.errors import TikmixError


class UserError(click.ClickException):
    """A `TikmixError` for the command line, which prints it without a traceback."""


class TikmixSession(KedroSession):
    """A session whose runs skip what is already made from the same things.

    Naming nodes, tags, namespaces or datasets runs these without asking what is there.
    """

    def load_context(self) -> KedroContext:
        """Load the context; a mistake in the parameters ends here."""
        try:
            return super().load_context()
        except TikmixError as error:
            raise UserError(str(error)) from error

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run pipelines, by default only the nodes whose outputs are missing or stale."""
        selected = ("tags", "node_names", "from_nodes", "to_nodes", "from_inputs", "to_outputs", "namespaces")
        if not any(kwargs.get(name) for name in selected):
            kwargs["only_missing_outputs"] = True
        try:
            return super().run(*args, **kwargs)
        except KeyboardInterrupt:
            raise UserError(
                "Interrupted. What is finished is kept, and a chunk under way is kept up to its last resume point: "
                "the same command goes on from there."
            ) from None
        except Exception as error:
            mistake = _user_mistake(error)
            if mistake is None:
                raise
            raise UserError(str(mistake)) from error


def _user_mistake(error: BaseException | None) -> TikmixError | None:
    """Find the user's mistake behind what Kedro made of it."""
    while error is not None:
        if isinstance(error, TikmixError):
            return error
        error = error.__cause__ or error.__context__
    return None
