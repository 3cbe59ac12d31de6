"""How numbers are written for people: few digits, units, a true minus sign, and words for what is not known.

Number and unit are joined by a space that no line breaks at.
"""

import math
from collections.abc import Iterable, Sequence

NOT_KNOWN = "not known"
"""Stands for numbers that are missing or no numbers."""

_SPACE = "\u00a0"
_UNITS = ("", "k", "M", "B", "T", "Q")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MAX_DECIMALS = 8
_GAIN_UNITS = {"share": "share of the best possible", "nats": "nats per token"}


def abbreviated(count: float | None) -> str:
    """Write a count of tokens or parameters with two digits: 1.2 T, 34 B, 5.6 M, 512."""
    if count is None or math.isnan(count):
        return NOT_KNOWN
    if math.isinf(count):
        return "no limit"
    power = 0
    while float(_two_digits(abs(count))) >= 1000 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    text = _two_digits(abs(count))
    sign = "−" if count < 0 and float(text) else ""
    return f"{sign}{text}{_SPACE if power else ''}{_UNITS[power]}"


def times(count: float | None) -> str:
    """Write how often something was or may be done: 2.4, 0.03, 12."""
    if count is None or not math.isfinite(count):
        return NOT_KNOWN
    return _trimmed(f"{count:.2f}") if 0.005 <= count < 1 else _two_digits(count)


def share(value: float | None, decimals: int = 1) -> str:
    """Write a share of one as per cent: 12.3 %; what would round to nothing is "< 0.1 %"."""
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    least = 10.0**-decimals
    if 0 < value * 100 < least / 2:
        return f"<{_SPACE}{least:.{decimals}f}{_SPACE}%"
    return f"{true_minus(f'{value * 100:.{decimals}f}')}{_SPACE}%"


def brief_share(value: float) -> str:
    """Write a share for a sentence: 12 %, 3.4 %."""
    return share(value, 0 if value >= 0.0995 else 1)


def percentage_points(change: float) -> str:
    """Write a change of a share in percentage points, with its sign: +3.1, −0.4, 0.0."""
    text = f"{change * 100:+.1f}"
    return "0.0" if float(text) == 0 else true_minus(text)


def shared_power(values: Iterable[float]) -> int:
    """Return the power of ten, a multiple of three, that lets the largest of these be read: 0 from 0.001 on."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 0 if largest == 0 or largest >= 1e-3 else 3 * math.floor(math.log10(largest) / 3)


def gain_unit(unit: str, power: int = 0) -> str:
    """Name the unit (`share` or `nats`) of a gain that was divided by ten to this power."""
    name = _GAIN_UNITS[unit]
    return name if power == 0 else f"×{_SPACE}10{_superscript(power)} {name}"


def in_unit(text: str, unit: str, power: int = 0) -> str:
    """Write a gain with its unit: 0.3 nats per token, 0.3 (share of the best possible); see `gain_unit`."""
    name = gain_unit(unit, power)
    return f"{text} {name}" if unit == "nats" else f"{text} ({name})"


def with_error(value: float, stderr: float | None, power: int = 0) -> str:
    """Write a figure and its standard error: 0.012 ± 0.004; the figure alone where the error is not known.

    Both are divided by ten to the power `power`; the unit must say so (`gain_unit`).
    """
    figure = to_error(value, stderr, power)
    if stderr is None or not math.isfinite(stderr) or not math.isfinite(value):
        return figure
    return f"{figure}{_SPACE}±{_SPACE}{stderr / 10.0**power:.{_error_decimals(value, stderr, power)}f}"


def to_error(value: float | None, stderr: float | None, power: int = 0) -> str:
    """Write a figure to the digits that a standard error leaves, two where that is not known; see `with_error`."""
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    return true_minus(f"{value / 10.0**power:.{_error_decimals(value, stderr, power)}f}")


def operations(flops: float | None) -> str:
    """Write a number of floating-point operations: 3.2 × 10²¹."""
    if flops is None or not math.isfinite(flops):
        return NOT_KNOWN
    if flops < 1000:
        return f"{flops:.0f}"
    mantissa, exponent = f"{flops:.1e}".split("e")
    return f"{mantissa}{_SPACE}×{_SPACE}10{_superscript(int(exponent))}"


def correlation(value: float | None) -> str:
    """Write a correlation with two decimals."""
    return "not measured" if value is None or not math.isfinite(value) else true_minus(f"{value:.2f}")


def effect(percent: float, *, unsure: bool) -> str:
    """Write an effect in per cent of the strongest with its sign, and a question mark where it may be nothing."""
    text = true_minus(f"{percent:.0f}")
    return f"{'+' if percent >= 0.5 else ''}{text}{f'{_SPACE}?' if unsure else ''}"


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def true_minus(text: str) -> str:
    """Replace the hyphen before a number by a minus sign, and drop it before a zero."""
    if text.startswith("-"):
        return text[1:] if float(text) == 0 else f"−{text[1:]}"
    return text


def _superscript(power: int) -> str:
    return str(power).translate(_SUPERSCRIPTS)


def _two_digits(value: float) -> str:
    """Write two digits, or all those before the point."""
    return _trimmed(f"{value:.1f}") if value < 9.95 else f"{value:.0f}"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimals(value: float, digits: int) -> int:
    """Return how many decimals show so many digits of a value."""
    if value == 0:
        return digits
    leading = int(f"{value:.{digits - 1}e}".split("e")[1])
    return min(max(digits - 1 - leading, 0), _MAX_DECIMALS)


def _error_decimals(value: float, stderr: float | None, power: int) -> int:
    if not stderr or not math.isfinite(stderr):
        return _decimals(value / 10.0**power, 2)
    error = stderr / 10.0**power
    # an error of 0.013 written as 0.01 would be off by a third
    return _decimals(error, 2 if f"{error:.1e}"[0] == "1" else 1)
