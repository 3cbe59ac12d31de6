"""The one exception for what a user can mend, and what lies behind an exception."""

from collections.abc import Iterator


class TikmixError(Exception):
    """A mistake in parameters, data or files that the user can put right.

    The message names the parameter or file at fault, what was expected and what to do next. The command line shows it
    without a traceback.
    """


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then what it was raised from or while handling, and so on to the first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
