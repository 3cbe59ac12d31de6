"""The objective of TiKMiX-M: D's, or the sum of the normalised gains, as a function of predicted gains.

Axes: N mixtures, K domains, T targets, C targets that count.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses, Scale, varies
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
        counts_T: the targets that take part; others do not vary, or nothing tells them apart.
        anchor_K: the mixture that the entropy is relative to; None for the uniform one.
    """

    kind: Literal["direct", "sum"]
    parameters: OptimizeParameters
    counts_T: npt.NDArray[np.bool_]
    anchor_K: FloatArray | None = None

    @classmethod
    def of(cls, responses: Responses, scale: Scale, sweep: SweepParameters, parameters: OptimizeParameters) -> "Goal":
        """Return the goal over the targets whose measured responses vary."""
        return cls(sweep.objective, parameters, scale.counts & varies(responses.response_NT))

    def aggregate(self, gains_NT: FloatArray) -> FloatArray:
        """Return F without the entropy, which needs no predicting: `α·std(P̂) − β·ΣP̂`, or `−ΣP̂`; shape (N,)."""
        counting_NC = gains_NT[:, self.counts_T]
        if not counting_NC.shape[1]:
            return np.zeros(len(gains_NT))
        gain_N: FloatArray = counting_NC.sum(axis=1)
        if self.kind == "sum":
            return -gain_N
        spread_N: FloatArray = counting_NC.std(axis=1)
        return self.parameters.uniformity * spread_N - self.parameters.gain_of(counting_NC.shape[1]) * gain_N

    def entropy(self, weights_NK: FloatArray) -> FloatArray:
        """Return what the entropy adds to F: `−γ·(H(w) + w·ln q)`, or nothing; shape (N,)."""
        if self.kind == "sum":
            return np.zeros(len(weights_NK))
        log_NK = np.log(np.maximum(weights_NK, np.finfo(np.float64).tiny))
        pull_K = np.zeros(weights_NK.shape[1]) if self.anchor_K is None else np.log(self.anchor_K)
        less_N: FloatArray = self.parameters.entropy * (weights_NK * (log_NK - pull_K)).sum(axis=1)
        return less_N
