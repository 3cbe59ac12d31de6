"""The one exception for what a user can mend, what lies behind an exception, and how a message names what is known."""

import difflib
import itertools
from collections.abc import Collection, Iterator

_LISTED_AT_MOST = 50
_COMPARED_AT_MOST = 10_000


class TikmixError(Exception):
    """A mistake in parameters, data or files that the user can put right.

    The message names the parameter or file at fault, what was expected and what to do next. The command line shows it
    without a traceback.
    """


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then what it was raised from or while handling, and so on to the first."""
    cause: BaseException | None = error
    seen: set[int] = set()  # one that was raised from itself would be the first without end
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__


def nearest_name(name: str, names: Collection[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known one, and the names there are."""
    nearest = difflib.get_close_matches(name, itertools.islice(names, _COMPARED_AT_MOST), n=1)
    guess = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"{guess} The names are {quoted(names, at_most=_LISTED_AT_MOST)}." if names else " There are none."


def require_known(source: str, kind: str, names: Collection[str], known: Collection[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        TikmixError: saying which parameter, the `source`, names what that is not there.
    """
    for name in names:
        if name not in known:
            raise TikmixError(f"{source} names the {kind} '{name}', which is not there.{nearest_name(name, known)}")


def quoted(names: Collection[str], *, at_most: int | None = None) -> str:
    """Return the names in quotes, separated by commas; of more than `at_most` the first, and how many more."""
    listed = [f"'{name}'" for name in itertools.islice(names, at_most)]
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return ", ".join(listed) + more
