"""The one exception for what a user can mend."""


class TikmixError(Exception):
    """A mistake in parameters, data or files that the user can put right.

    The message names the parameter or file at fault, what was expected and what to do next. The command line shows it
    without a traceback.
    """
