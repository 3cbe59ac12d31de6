"""The objective of TiKMiX-M: D's, or the sum of the normalised gains, as a function of predicted gains.

Axes: N mixtures, K domains, T responses, U targets of the objective.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses, Scale, varies
from tikmix_pipeline.mixture.targets import Targets, spread, total
from tikmix_pipeline.parameters.decision import OptimizeParameters
from tikmix_pipeline.parameters.sweep import SweepParameters

AGGREGATE = "aggregate"
"""The one target of `sweep.target: aggregate`."""


@dataclass(frozen=True, eq=False)
class Goal:
    """F as a function of gains: D's objective, or their sum.

    Attributes:
        kind: `direct` or `sum`.
        parameters: α, β, γ.
        counts_T: the responses that take part; others do not vary, or nothing tells them apart.
        targets: what the objective makes of them: each by itself, or groups, with their weights.
        anchor_K: the mixture that the entropy is relative to; None for the uniform one.
    """

    kind: Literal["direct", "sum"]
    parameters: OptimizeParameters
    counts_T: npt.NDArray[np.bool_]
    targets: Targets
    anchor_K: FloatArray | None = None

    @classmethod
    def of(cls, responses: Responses, scale: Scale, sweep: SweepParameters, parameters: OptimizeParameters) -> "Goal":
        """Return the goal over the targets whose measured responses vary."""
        counts_T = scale.counts & varies(responses.response_NT)
        return cls(sweep.objective, parameters, counts_T, Targets.of(responses.targets, counts_T, parameters))

    def aggregate(self, gains_NT: FloatArray) -> FloatArray:
        """Return F without the entropy, which needs no predicting: `α·std(P̂) − β·ΣP̂`, or `−ΣP̂`; shape (N,)."""
        spread_N, gain_N = self.terms(gains_NT)
        if self.kind == "sum":
            return -gain_N
        return self.parameters.uniformity * spread_N - self.parameters.gain_of(len(self.targets.weight_U)) * gain_N

    def terms(self, gains_NT: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return `std(P̂)` and `ΣP̂` over the targets, without their weights in F; each of shape (N,)."""
        gain_NU = self.targets.gains(gains_NT)
        return spread(gain_NU, self.targets.weight_U), total(gain_NU, self.targets.weight_U)

    def entropy(self, weights_NK: FloatArray) -> FloatArray:
        """Return what the entropy adds to F: `−γ·(H(w) + w·ln q)`, or nothing; shape (N,)."""
        if self.kind == "sum":
            return np.zeros(len(weights_NK))
        log_NK = np.log(np.maximum(weights_NK, np.finfo(np.float64).tiny))
        pull_K = np.zeros(weights_NK.shape[1]) if self.anchor_K is None else np.log(self.anchor_K)
        less_N: FloatArray = self.parameters.entropy * (weights_NK * (log_NK - pull_K)).sum(axis=1)
        return less_N
