"""Runs that did not come out as the others of a table: they diverged, or hold a mark for what was not measured.

A single such run decides what a surrogate makes of all others, while ranks, by which a surrogate is judged, hardly
show it. So it is left out, and that is said. What is usual is told by the runs themselves: the median of a target, and
the median of the deviations from it.

Mixtures that are far from the others' may well score far from them. So a run has as much more room as its mixture is
farther out; and of scores with one sign, such as losses and perplexities, it has to be far off on the scale of their
logarithms too, for their tails are long.

Axes: N runs, K domains.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.simplex import FloatArray

if TYPE_CHECKING:
    import pandas as pd

_LIMIT = 10.0
"""Robust deviations to the worse side that are still usual, of many runs. Real runs, whatever their design, stay below
7 (RegMix's 768, and branches of this project, 24 at a time and more)."""
_UNSURE = 12.0
"""So many runs double the limit: of few, the median deviation may be small by chance."""
_BETTER = 2.0
"""The limit to the better side over the other: a mixture may be the only good one for a target, and then is the most
telling of all; a score in another unit is farther off than that."""
_SIGN = 0.5
"""The limit over the other for a score whose sign no other run has: a loss or an accuracy of -1 cannot be."""
_LEAST_DEVIATION = 0.01
"""Of the median: runs that agree more closely than this tell nothing about what is usual."""
_SHARE = 0.1
"""More runs than this are no exceptions, and what is usual is not known."""
_FEWEST = 8
"""Of fewer runs nobody can tell which of them is the odd one."""
_NORMAL = 1.4826
_NORMAL_OF_MEAN = 1.2533
"""Standard deviations of a normal distribution, over its median and its mean absolute deviation."""
_SHOWN = 3

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _FarRun:
    """A run and the score of it that is the farthest from what is usual."""

    place: int
    column: str
    value: float
    quartiles: tuple[float, float, float]

    def told(self, run: str, line: int) -> str:
        low, median, high = (f"{quartile:.4g}" for quartile in self.quartiles)
        return (
            f"line {line}, column '{self.column}': '{run}' has {self.value:g}, where the median is {median} and half "
            f"of the runs are from {low} to {high}"
        )


def near_runs(
    path: Path,
    scores: "pd.DataFrame",
    lines: "pd.Series[int]",
    higher: Sequence[bool],
    weights_NK: FloatArray,
    far_runs: Literal["leave_out", "keep"],
) -> list[int]:
    """Return the places of the runs that are to count, which are near what is usual for all targets; warn of others.

    Args:
        path: of the scores, for what is said.
        scores: as the file has them, a row per run, all finite.
        lines: of the runs in the file.
        higher: of each target whether it is the better the higher.
        weights_NK: the runs' mixtures.
        far_runs: `keep` has those count that are far off.

    Raises:
        TikmixError: too many runs are far off to be exceptions, and to be left out.
    """
    everyone = list(range(len(scores)))
    far = _far_runs(scores, higher, weights_NK)
    if far:
        runs = [str(scores.index[one.place]) for one in far]
        told = [one.told(run, int(lines[run])) for one, run in zip(far[:_SHOWN], runs, strict=False)]
        said = "; ".join(told) + (f"; and {len(far) - _SHOWN} more" if len(far) > _SHOWN else "")
        if far_runs == "keep":
            _LOG.warning(
                "%s: %d of %d runs have scores far from all others', and count, as sweep.table.far_runs has it: %s.",
                *(path, len(far), len(scores), said),
            )
            return everyone
        if len(far) > max(1, int(_SHARE * len(scores))):
            raise TikmixError(
                f"{path}: {len(far)} of {len(scores)} runs have scores far from all others', more than can be left "
                f"out as exceptions ({_SHARE:.0%}): {said}. Mend these cells, leave empty what was not measured, or "
                "take the rows or the column out of the file; if they are right, set sweep.table.far_runs=keep."
            )
        _LOG.warning(
            "%s: %d of %d runs are left out, as scores of theirs are far from all others', as of training that "
            "diverged, or are marks for what was not measured: %s. Mend the cells, or take the rows out of the file; "
            "if they are right, sweep.table.far_runs=keep has them count.",
            *(path, len(far), len(scores), said),
        )
    left_out = {one.place for one in far}
    return [n for n in everyone if n not in left_out]


def _far_runs(scores: "pd.DataFrame", higher: Sequence[bool], weights_NK: FloatArray) -> list[_FarRun]:
    if len(scores) < _FEWEST:
        return []
    room_N = _room(weights_NK)
    values_NT: FloatArray = scores.to_numpy()
    excess_NT = np.stack(
        [_excess(value_N, room_N, is_higher) for value_N, is_higher in zip(values_NT.T, higher, strict=True)], axis=1
    )
    found = []
    for n in np.flatnonzero(excess_NT.max(axis=1) > 1):
        t = int(excess_NT[n].argmax())
        low, median, high = np.quantile(values_NT[:, t], [0.25, 0.5, 0.75]).tolist()
        found.append(_FarRun(int(n), str(scores.columns[t]), float(values_NT[n, t]), (low, median, high)))
    return found


def _room(weights_NK: FloatArray) -> FloatArray:
    """Return how many times as far as usual each mixture is from the median one, at least 1."""
    distance_N = np.abs(weights_NK - np.median(weights_NK, axis=0)).sum(axis=1)
    usual = float(np.median(distance_N)) or float(distance_N.mean()) or 1.0
    room_N: FloatArray = np.maximum(distance_N / usual, 1.0)
    return room_N


def _excess(value_N: FloatArray, room_N: FloatArray, is_higher: bool) -> FloatArray:
    """Return how far each score is from what is usual, over how far it may be."""
    limit = _LIMIT * (1 + _UNSURE / len(value_N))
    deviation_N = _deviations(value_N)
    is_odd_N = np.zeros(len(value_N), dtype=np.bool_)
    sign = np.sign(np.median(value_N))
    has_sign_N = np.sign(value_N) == sign
    if sign and has_sign_N.mean() >= 1 - _SHARE:
        is_odd_N = ~has_sign_N
        of_logarithms_N = np.full_like(value_N, np.inf)
        of_logarithms_N[has_sign_N] = np.abs(_deviations(np.log(sign * value_N[has_sign_N]), _LEAST_DEVIATION))
        deviation_N = np.copysign(np.minimum(np.abs(deviation_N), of_logarithms_N), deviation_N)
    is_worse_N = (deviation_N < 0) == is_higher
    limit_N = limit * np.where(is_odd_N, _SIGN, room_N * np.where(is_worse_N, 1.0, _BETTER))
    excess_N: FloatArray = np.abs(deviation_N) / limit_N
    return excess_N


def _deviations(value_N: FloatArray, least: float | None = None) -> npt.NDArray[np.float64]:
    """Return the distances from the median in robust standard deviations, of which `least` is the smallest."""
    median = float(np.median(value_N))
    distance_N = value_N - median
    unit = _NORMAL * float(np.median(np.abs(distance_N))) or _NORMAL_OF_MEAN * float(np.abs(distance_N).mean())
    unit = max(unit, _LEAST_DEVIATION * abs(median) if least is None else least)
    deviation_N: FloatArray = distance_N / unit if unit > 0 else np.zeros_like(distance_N)
    return deviation_N
