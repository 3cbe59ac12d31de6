"""Measured responses of candidate mixtures, as arrays and as tables, and the scale on which they compare.

A response is lower-is-better: a loss, or for `sweep.response: influence` the gain `S w` with its sign turned. What is
searched is the normalised gain `P̂_t = (offset_t − response_t) / scale_t`, so that targets compare.

Axes: N candidates, K domains, T targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.simplex import FloatArray

if TYPE_CHECKING:
    import pandas as pd

_STILL = 1e-12
"""A column does not vary if its range is at most this share of its largest absolute value."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Mixtures and what was measured under each, by the id of its run; lower is better."""

    runs: tuple[str, ...]
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weights_NK: FloatArray
    response_NT: FloatArray

    def __post_init__(self) -> None:
        """Refuse names and numbers that do not belong together."""
        shapes = self.weights_NK.shape, self.response_NT.shape
        count, domains, targets = len(self.runs), len(self.domains), len(self.targets)
        if shapes != ((count, domains), (count, targets)):
            raise ValueError(
                f"weights and responses of shapes {shapes} for {count} runs, {domains} domains and {targets} targets"
            )

    def __len__(self) -> int:
        """Return N."""
        return len(self.runs)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> "Responses":
        """Return the candidates at these positions, in their order."""
        chosen = np.asarray(rows, dtype=np.intp)
        runs = tuple(self.runs[n] for n in chosen)
        return replace(self, runs=runs, weights_NK=self.weights_NK[chosen], response_NT=self.response_NT[chosen])


def run_table(rows: Mapping[str, Sequence[float]], columns: Sequence[str]) -> "pd.DataFrame":
    """Return a table in Olmix's columns: `run`, then the numbers of each run."""
    import pandas as pd

    table = pd.DataFrame.from_dict(dict(rows), orient="index", columns=list(columns))
    return table.rename_axis("run").reset_index()


def tables_of(responses: Responses) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Return the mixtures and the responses in Olmix's columns, in the same order of runs."""
    return (
        run_table(dict(zip(responses.runs, responses.weights_NK.tolist(), strict=True)), responses.domains),
        run_table(dict(zip(responses.runs, responses.response_NT.tolist(), strict=True)), responses.targets),
    )


def responses_of(ratios: "pd.DataFrame", metrics: "pd.DataFrame") -> Responses:
    """Return what two frames in Olmix's columns hold, joined on `run`, in the order of `ratios`.

    A run without a row in `metrics`, or with one that is not all finite, is left out.

    Raises:
        TikmixError: no run is left.
    """
    domains, targets = tuple(ratios.columns.drop("run")), tuple(metrics.columns.drop("run"))
    scores = metrics.assign(run=metrics["run"].astype(str)).set_index("run")
    scores = scores[np.isfinite(scores.to_numpy(dtype=np.float64)).all(axis=1)]
    runs = ratios["run"].astype(str)
    is_measured = runs.isin(scores.index).to_numpy()
    kept = tuple(runs[is_measured])
    if not kept:
        raise TikmixError(
            f"None of the sweep's {len(runs)} candidates has a measured response. See the log for why, mend it and run "
            "sweep again."
        )
    return Responses(
        runs=kept,
        domains=domains,
        targets=targets,
        weights_NK=ratios.loc[is_measured, list(domains)].to_numpy(dtype=np.float64),
        response_NT=scores.loc[list(kept), list(targets)].to_numpy(dtype=np.float64),
    )


@dataclass(frozen=True, eq=False)
class Scale:
    """`P̂_t = (offset_t − response_t) / scale_t`.

    A target with nothing to tell mixtures apart has an infinite scale: its gain is 0 everywhere, and `counts` leaves
    it out of the objective.
    """

    offset_T: FloatArray
    """The response at which a target gains nothing."""
    scale_T: FloatArray
    """The fall of the response that is a gain of 1; positive."""

    @property
    def counts(self) -> npt.NDArray[np.bool_]:
        """Say which targets have a scale, so that they belong in the objective."""
        return np.isfinite(self.scale_T)

    def gains(self, response_NT: FloatArray) -> FloatArray:
        """Return P̂ of measured or predicted responses."""
        return (self.offset_T - response_NT) / self.scale_T

    @classmethod
    def of_normaliser(cls, normaliser_T: FloatArray) -> "Scale":
        """Return the scale of responses that are `−S w`: D's own normaliser."""
        return cls(np.zeros_like(normaliser_T), normaliser_T.copy())

    @classmethod
    def like_direct(cls, response_NT: FloatArray, direct_NT: FloatArray, known_T: FloatArray | None = None) -> "Scale":
        """Return the scale on which measured gains have the mean and the spread of those that D predicts.

        D predicts `Ŝ w` of the same candidates. So α, β and γ weigh what they weigh in D, whatever the response's unit.
        Of the spread a target has only as large a share as is `known`: what its surrogate explains of responses that it
        was not fitted on. Without that, candidates that differ by noise alone would be as far apart as D expects of
        them. A target whose response or whose prediction is the same under all candidates is left out, and so is one
        of which nothing is known.

        Args:
            known_T: from 0 to 1; None for 1.
        """
        share_T = np.ones(response_NT.shape[1]) if known_T is None else known_T
        counts_T = varies(response_NT) & varies(direct_NT) & (share_T > 0)
        spread_T = np.where(counts_T, share_T * direct_NT.std(axis=0), 1.0)
        scale_T = np.where(counts_T, response_NT.std(axis=0) / spread_T, np.inf)
        shift_T = np.where(counts_T, scale_T, 0.0) * direct_NT.mean(axis=0)
        return cls(response_NT.mean(axis=0) + shift_T, scale_T)

    @classmethod
    def of_range(cls, response_NT: FloatArray) -> "Scale":
        """Return the scale on which the best measured response is 1 and the worst 0.

        A target whose response is the same under all candidates is left out.
        """
        worst_T = response_NT.max(axis=0)
        return cls(worst_T, np.where(varies(response_NT), worst_T - response_NT.min(axis=0), np.inf))


def fold_count(folds: int, rows: int) -> int:
    """Return how many folds so many rows are dealt into: at most `folds`, with two rows in each where that can be."""
    return max(2, min(folds, rows // 2))


def varies(values_NT: FloatArray) -> npt.NDArray[np.bool_]:
    """Say which columns are not constant."""
    varies_T: npt.NDArray[np.bool_] = np.ptp(values_NT, axis=0) > _STILL * np.abs(values_NT).max(axis=0)
    return varies_T
