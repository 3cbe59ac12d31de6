"""Measured responses of candidate mixtures, and the scale on which they compare.

A response is lower-is-better: a loss, or for `sweep.response: influence` the gain `S w` with its sign turned. What is
searched is the normalised gain `P̂_t = (offset_t − response_t) / scale_t`, so that targets compare.

Axes: N candidates, K domains, T targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.simplex import FloatArray

_STILL = 1e-12
"""A column does not vary if its range is at most this share of its largest absolute value."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Mixtures and what was measured under each.

    Attributes:
        runs: the id of each candidate.
        domains: names of axis K.
        targets: names of axis T.
        weights_NK: the mixtures, one per row.
        response_NT: what was measured; lower is better.
    """

    runs: tuple[str, ...]
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weights_NK: FloatArray
    response_NT: FloatArray

    def __post_init__(self) -> None:
        """Refuse names and numbers that do not belong together."""
        shapes = self.weights_NK.shape, self.response_NT.shape
        count = len(self.runs)
        if shapes != ((count, len(self.domains)), (count, len(self.targets))):
            raise ValueError(
                f"weights and responses of shapes {shapes} for {count} runs, {len(self.domains)} domains and "
                f"{len(self.targets)} targets"
            )

    def __len__(self) -> int:
        """Return N."""
        return len(self.runs)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> "Responses":
        """Return the candidates at these positions, in their order."""
        chosen = np.asarray(rows, dtype=np.intp)
        return Responses(
            runs=tuple(self.runs[n] for n in chosen),
            domains=self.domains,
            targets=self.targets,
            weights_NK=self.weights_NK[chosen],
            response_NT=self.response_NT[chosen],
        )


@dataclass(frozen=True, eq=False)
class Scale:
    """`P̂_t = (offset_t − response_t) / scale_t`.

    A target with nothing to tell mixtures apart has an infinite scale: its gain is 0 everywhere, and `counts` leaves
    it out of the objective.

    Attributes:
        offset_T: the response at which a target gains nothing.
        scale_T: the fall of the response that is a gain of 1; positive.
    """

    offset_T: FloatArray
    scale_T: FloatArray

    @property
    def counts(self) -> npt.NDArray[np.bool_]:
        """Say which targets have a scale, so that they belong in the objective."""
        return np.isfinite(self.scale_T)

    def gains(self, response_NT: FloatArray) -> FloatArray:
        """Return P̂ of measured or predicted responses."""
        gain_NT: FloatArray = (self.offset_T - response_NT) / self.scale_T
        return gain_NT

    @classmethod
    def of_normaliser(cls, normaliser_T: FloatArray) -> "Scale":
        """Return the scale of responses that are `−S w`: D's own normaliser."""
        return cls(np.zeros_like(normaliser_T), normaliser_T.copy())

    @classmethod
    def like_direct(cls, response_NT: FloatArray, direct_NT: FloatArray) -> "Scale":
        """Return the scale on which measured gains have the mean and the spread of those that D predicts.

        So α, β and γ weigh what they weigh in D, whatever the response's unit. A target whose response or whose
        prediction is the same under all candidates is left out.

        Args:
            response_NT: what was measured.
            direct_NT: `Ŝ w` of the same candidates, D's normalised gains.
        """
        varies_T = varies(response_NT) & varies(direct_NT)
        spread_T = np.where(varies_T, direct_NT.std(axis=0), 1.0)
        scale_T = np.where(varies_T, response_NT.std(axis=0) / spread_T, np.inf)
        shift_T = np.where(varies_T, scale_T, 0.0) * direct_NT.mean(axis=0)
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
