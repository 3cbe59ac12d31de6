"""Which figures may be read as more than noise."""

import math
from enum import StrEnum

ERRORS = 2.0
"""Standard errors that a figure must be away from zero to count as distinguishable: about 95 % for one figure alone."""


class Verdict(StrEnum):
    """What an expected gain says."""

    GAINS = "gains"
    LOSES = "loses"
    UNCLEAR = "not distinguishable from zero"
    UNCHANGED = "unchanged"
    UNKNOWN = "not known"


def error_known(stderr: float | None) -> bool:
    """Say whether there is a standard error to go by."""
    return stderr is not None and math.isfinite(stderr)


def within_error(value: float, stderr: float | None) -> bool:
    """Say whether a figure lies less than two known standard errors from zero."""
    return stderr is not None and math.isfinite(stderr) and abs(value) < ERRORS * stderr


def verdict_of(gain: float, stderr: float | None) -> Verdict:
    """Judge a gain; one whose error is not known goes by its sign."""
    if not math.isfinite(gain):
        return Verdict.UNKNOWN
    if within_error(gain, stderr):
        return Verdict.UNCLEAR
    if gain == 0:
        return Verdict.UNCHANGED
    return Verdict.GAINS if gain > 0 else Verdict.LOSES
