"""Runs that a table holds more than once, and the folds in which runs of one mixture stay together.

A copy in the rows that a surrogate is fitted on tells it the answer for the copy that it is judged on, and a mixture
counts as often as it is there. A run of the same mixture with other scores is a replicate: it says how large the noise
is, and stays, on one side of a cross-validation.

Axes: N rows, K domains.
"""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses, fold_count

_SHOWN = 5

_LOG = logging.getLogger(__name__)


def without_copies(path: Path, found: Responses) -> Responses:
    """Return runs each of which differs from all others, and warn of those left out: same mixture, same scores."""
    place_N = _first_alike(np.concatenate([found.weights_NK, found.response_NT], axis=1))
    copies = [n for n in range(len(found)) if place_N[n] != n]
    if not copies:
        return found
    told = ", ".join(f"'{found.runs[n]}' is '{found.runs[place_N[n]]}'" for n in copies[:_SHOWN])
    _LOG.warning(
        "%s: %d of %d runs are left out, as they are copies, with the mixture and all scores of another: %s%s",
        *(path, len(copies), len(found), told),
        f" and {len(copies) - _SHOWN} more" if len(copies) > _SHOWN else "",
    )
    return found.take([n for n in range(len(found)) if place_N[n] == n])


def dealt_into_folds(
    weights_NK: FloatArray, folds: int, seed: int
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Return the rows to learn from and those held out, by fold; rows of one mixture are in the same fold.

    Where all mixtures differ, these are the folds of scikit-learn's `KFold`, and so they are where there is one mixture
    alone, which cannot be parted from itself.
    """
    from sklearn.model_selection import KFold

    place_N = _first_alike(weights_NK)
    mixtures = np.unique(place_N)
    if len(mixtures) < 2:
        place_N = mixtures = np.arange(len(weights_NK))
    splitter = KFold(fold_count(folds, len(mixtures)), shuffle=True, random_state=seed)
    held_out = [np.isin(place_N, mixtures[chosen]) for _, chosen in splitter.split(mixtures)]
    return [(np.flatnonzero(~is_held_out_N), np.flatnonzero(is_held_out_N)) for is_held_out_N in held_out]


def _first_alike(values_NC: FloatArray) -> npt.NDArray[np.intp]:
    """Return the place of the first row that is equal to each."""
    _, first, alike_N = np.unique(values_NC, axis=0, return_index=True, return_inverse=True)
    place_N: npt.NDArray[np.intp] = first[alike_N.reshape(-1)]
    return place_N
