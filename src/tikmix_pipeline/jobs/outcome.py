"""What becomes of a job, told the same way by every engine."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tikmix_pipeline.errors import TikmixError


@dataclass(frozen=True)
class Died:
    """A job that ended without a word.

    Attributes:
        exit_code: of its process, negative for a signal; None where nobody saw it end.
        cause: why, where more is known than the code.
    """

    exit_code: int | None = None
    cause: str = ""

    @property
    def reason(self) -> str:
        """Why it died, as the end of a sentence."""
        return self.cause or f"its process ended with code {self.exit_code}, as when memory runs out"


Answer = tuple[bool, Any]
"""Whether a job returned, and what; or the error that it ended in."""


def answered(function: Callable[[Any, Any], Any], shared: Any, job: Any) -> Answer:
    """Do a job, and return what it returned or raised in a form that another process can read."""
    try:
        return True, function(shared, job)
    except TikmixError as error:
        return False, error
    except Exception:
        return False, RuntimeError(traceback.format_exc())


def received(answer: Answer) -> Any:
    """Return what a job returned.

    Raises:
        TikmixError: as raised by the job.
        RuntimeError: the job raised anything else, and the message is its traceback.
    """
    returned, value = answer
    if not returned:
        raise value
    return value
