"""Gains that a mixture may not fall short of: of tasks (Pareto), and of held-out text (guardrails).

Constraint c asks `h_c(w) ≥ h_c(w_ref) − slack_c` with `h_c(w) = a_c·w − κ_c/2 · wᵀQw + b_c·ln(w + δ)`; κ is 0 where
gains are linear, and b is 0 but where text answers to its own share by the logarithm (`mixture.own_share`). As h is
concave, the mixtures that satisfy it are a convex set, and the tangent at any mixture bounds it from above: a
constraint on the tangent is one that every mixture within the constraint satisfies, which is all that a proof by
multipliers asks for.

Axes: N mixtures, C constraints, K domains.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.own_share import Logarithms
from tikmix_pipeline.mixture.simplex import FloatArray, Halfspaces


@dataclass(frozen=True, eq=False)
class LeastGains:
    """The constraints, against one reference mixture that satisfies them all."""

    rows_CK: FloatArray
    reference_K: FloatArray
    slack_C: FloatArray
    """How much less than under the reference a gain may be; not negative."""
    bend_C: FloatArray
    """κ; not negative."""
    curved_KK: FloatArray | None = None
    """Q, symmetric and without negative eigenvalues; None where no constraint bends."""
    logarithms: Logarithms | None = None
    """`b·ln(w + δ)`; None where no constraint has any."""

    @classmethod
    def none(cls, reference_K: FloatArray) -> "LeastGains":
        """Return no constraint at all."""
        return cls.linear(np.zeros((0, len(reference_K))), reference_K)

    @classmethod
    def linear(cls, rows_CK: FloatArray, reference_K: FloatArray) -> "LeastGains":
        """Return `rows w ≥ rows w_ref`."""
        zeros_C = np.zeros(len(rows_CK))
        return cls(rows_CK, reference_K, zeros_C, zeros_C)

    def __len__(self) -> int:
        """Return C."""
        return len(self.rows_CK)

    def at(self, weights_K: FloatArray) -> FloatArray:
        """Return `h(w)`, (C,)."""
        gain_C: FloatArray = self.rows_CK @ weights_K
        if self.curved_KK is not None:
            gain_C = gain_C - self.bend_C * (weights_K @ self.curved_KK @ weights_K) / 2
        return gain_C if self.logarithms is None else gain_C + self.logarithms.at(weights_K[None])[0]

    def slopes(self, weights_K: FloatArray) -> FloatArray:
        """Return `∇h(w)`, (C, K)."""
        slope_CK: FloatArray = self.rows_CK
        if self.curved_KK is not None:
            slope_CK = slope_CK - np.outer(self.bend_C, self.curved_KK @ weights_K)
        return slope_CK if self.logarithms is None else slope_CK + self.logarithms.slopes(weights_K)

    def least(self) -> FloatArray:
        """Return what each may not fall below."""
        return self.at(self.reference_K) - self.slack_C

    def room(self, weights_NK: FloatArray) -> FloatArray:
        """Return by how much each mixture is within each constraint, (N, C); negative where it breaks it."""
        gain_NC: FloatArray = weights_NK @ self.rows_CK.T
        if self.curved_KK is not None:
            squared_N = np.einsum("nk,kj,nj->n", weights_NK, self.curved_KK, weights_NK)
            gain_NC = gain_NC - np.outer(squared_N, self.bend_C) / 2
        if self.logarithms is not None:
            gain_NC = gain_NC + self.logarithms.at(weights_NK)
        return gain_NC - self.least()

    def tangent(self, weights_K: FloatArray) -> Halfspaces:
        """Return half-spaces that hold every mixture within the constraints, and touch them at one."""
        if self.curved_KK is None and self.logarithms is None:
            return Halfspaces(self.rows_CK, self.least())
        slope_CK = self.slopes(weights_K)
        return Halfspaces(slope_CK, self.least() - self.at(weights_K) + slope_CK @ weights_K)

    def scaled(self, mean_C: FloatArray, scale_C: FloatArray) -> "LeastGains":
        """Return the same constraints with `(a − mean) / scale` for a, which asks the same on the simplex."""
        rows_CK = (self.rows_CK - mean_C[:, None]) / scale_C[:, None]
        logarithms = None if self.logarithms is None else self.logarithms.scaled(scale_C)
        slack_C, bend_C = self.slack_C / scale_C, self.bend_C / scale_C
        return LeastGains(rows_CK, self.reference_K, slack_C, bend_C, self.curved_KK, logarithms)

    def take(self, is_taken_C: npt.NDArray[np.bool_]) -> "LeastGains":
        """Return some of the constraints."""
        slack_C, bend_C = self.slack_C[is_taken_C], self.bend_C[is_taken_C]
        logarithms = None if self.logarithms is None else self.logarithms.take(is_taken_C)
        return LeastGains(self.rows_CK[is_taken_C], self.reference_K, slack_C, bend_C, self.curved_KK, logarithms)

    def joined(self, other: "LeastGains") -> "LeastGains":
        """Return the constraints of both, of which only the other has logarithms: same Q, same reference."""
        rows_CK, slack_C, bend_C = (
            np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("rows_CK", "slack_C", "bend_C")
        )
        curved_KK = other.curved_KK if self.curved_KK is None else self.curved_KK
        logarithms = other.logarithms
        if logarithms is not None:
            none_CK = np.zeros_like(self.rows_CK)
            logarithms = replace(logarithms, coefficients_CK=np.vstack([none_CK, logarithms.coefficients_CK]))
        return LeastGains(rows_CK, self.reference_K, slack_C, bend_C, curved_KK, logarithms)

    @property
    def bends(self) -> npt.NDArray[np.bool_]:
        """Whether each constraint is anything but linear, (C,)."""
        bends_C: npt.NDArray[np.bool_] = self.bend_C > 0
        if self.logarithms is not None:
            bends_C = bends_C | (self.logarithms.coefficients_CK.max(axis=1, initial=0) > 0)
        return bends_C
