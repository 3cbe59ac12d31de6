"""Runs of a table that would decide by what they are not: those that diverged, those not measured, and copies.

Axes: N runs, T targets.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError, quoted
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses

if TYPE_CHECKING:
    import pandas as pd

_FAR_DEVIATIONS = 20.0
"""Runs of one design, corners of the simplex among them, lie within some ten robust deviations of their median; a run
that diverged lies a hundred away."""
_MOST_SHARE = 0.1
"""Where more runs than this, and more than one, are far from the others, the design may have meant them."""
_LEAST_SPREAD = 1e-3
_NORMAL = 1.4826
_FEWEST = 8
_SHOWN = 5
_STATISTICS = frozenset(["mean", "average", "avg", "std", "stdev", "median", "total", "sum", "min", "max", "count"])

_LOG = logging.getLogger(__name__)


def without_odd_runs(path: Path, scores: "pd.DataFrame") -> list[str]:
    """Return the runs that can be learnt from, and warn of the others.

    A run is left out that lies far from the others in more than half of its scores, all of them worse or all better,
    if there are few such runs; and one with the score -1 where all others are positive, which stands for none.

    Args:
        path: of the file, for messages.
        scores: a row per run, under its id, and a column per target, the better the lower.
    """
    values_NT: FloatArray = scores.to_numpy()
    if len(values_NT) < _FEWEST:
        return list(scores.index)
    is_sign = _stands_for_none(values_NT)
    is_far = _far_off(values_NT) & ~is_sign
    _tell(path, scores, is_sign, "as -1 among positive scores stands for one that was not measured")
    if is_far.sum() > max(1, _MOST_SHARE * len(is_far)):
        _LOG.warning(
            "%s: %d of %d runs score far from the others (%s): see that none of them diverged. All count",
            *(path, is_far.sum(), len(is_far), quoted(list(scores.index[is_far])[:_SHOWN])),
        )
        is_far[:] = False
    first = int(np.argmax(is_far))
    usual = np.median(values_NT, axis=0)
    _tell(
        path,
        scores,
        is_far,
        f"as they score far from the others, as runs do that diverged: {scores.columns[0]!r} is "
        f"{values_NT[first, 0]:.4g} in the first of them and {usual[0]:.4g} in the median",
    )
    kept: list[str] = scores.index[~(is_far | is_sign)].tolist()
    return kept


def _far_off(values_NT: FloatArray) -> npt.NDArray[np.bool_]:
    median_T = np.median(values_NT, axis=0)
    spread_T = _NORMAL * np.median(np.abs(values_NT - median_T), axis=0)
    spread_T = np.maximum(spread_T, _LEAST_SPREAD * np.abs(median_T))
    is_above_NT, is_below_NT = (sign * (values_NT - median_T) > _FAR_DEVIATIONS * spread_T for sign in (1, -1))
    share_N: FloatArray = np.maximum(is_above_NT.mean(axis=1), is_below_NT.mean(axis=1))
    is_far_N: npt.NDArray[np.bool_] = share_N > 0.5
    return is_far_N


def _stands_for_none(values_NT: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which runs have a 1 of the sign that no other score of the target has; signs may have been turned."""
    is_one_NT = np.abs(values_NT) == 1
    others_T = np.sign(np.where(is_one_NT, 0, values_NT)).sum(axis=0)
    is_of_one_sign_T = np.abs(others_T) == (~is_one_NT).sum(axis=0)
    is_sign_NT: npt.NDArray[np.bool_] = is_one_NT & (np.sign(values_NT) == -np.sign(others_T)) & is_of_one_sign_T
    is_sign_N: npt.NDArray[np.bool_] = np.logical_or.reduce(is_sign_NT, axis=1)
    return is_sign_N


def _tell(path: Path, scores: "pd.DataFrame", is_out: npt.NDArray[np.bool_], why: str) -> None:
    if is_out.any():
        runs = quoted(scores.index[is_out], at_most=_SHOWN)
        _LOG.warning("%s: %d of %d runs are left out, %s: %s", path, is_out.sum(), len(scores), why, runs)


def without_copies(path: Path, found: Responses) -> Responses:
    """Leave out runs of the mixture and the scores of another: a copy would be on both sides of a cross-validation."""
    rows_NX = np.concatenate([found.weights_NK, found.response_NT], axis=1)
    _, first = np.unique(rows_NX, axis=0, return_index=True)
    kept = sorted(first.tolist())
    copies = sorted(set(range(len(found.runs))).difference(kept))
    if copies:
        _LOG.warning(
            "%s: %d of %d runs are left out, as they have the mixture and the scores of another: %s",
            *(path, len(copies), len(found.runs), quoted([found.runs[n] for n in copies], at_most=_SHOWN)),
        )
    return Responses(
        tuple(found.runs[n] for n in kept),
        found.domains,
        found.targets,
        found.weights_NK[kept],
        found.response_NT[kept],
    )


def require_run(path: Path, line: int, run: str) -> None:
    """Refuse a row of statistics, as exports of tables end in.

    Raises:
        TikmixError: it names the line.
    """
    if run.lower() in _STATISTICS:
        raise TikmixError(
            f"{path}, line {line}: the run {run!r} is called like a statistic of the others. Take the row out of the "
            "file, or give the run another id."
        )
