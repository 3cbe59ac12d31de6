"""φ as branches of the checkpoint have measured it: how many nats a unit of held-out text's gain is, over the tasks'.

Branches (`optimize.branches`) are scored on held-out text, too. What branch n has of a guarded text over the
reference's branch, y_n, is held against what is told of it (`own_share`), u_n:

    c_g = Σ_n u_n y_n / Σ_n u_n²,    φ = c_g / c₁

by least squares through the origin, with c₁ of the tasks (`response_fit`). It takes the place of the rule, which is the
same for every checkpoint and every text.

Axes: N branches, K domains.
"""

from dataclasses import dataclass

import numpy as np

from tikmix_pipeline.mixture.simplex import FloatArray

_FURTHEST = 5.0
"""How many times the rule φ may be, or the rule φ: what lies beyond is noise."""


@dataclass(frozen=True, eq=False)
class HeldoutOfBranches:
    """What branches have of held-out text."""

    weights_NK: FloatArray
    """Their mixtures."""
    reference_K: FloatArray
    """That of the branch that the others are held against."""
    gain_KN: FloatArray
    """Of each domain's text, over the reference's branch, in nats per token."""


def measured_strength(told_N: FloatArray, gain_N: FloatArray, scale: float, rule: float) -> float:
    """Return φ of a text, or the rule where branches say nothing of it, or the opposite of what was told.

    Args:
        told_N: u, in the units of S.
        gain_N: y, in nats.
        scale: c₁, nats per unit of S on the tasks.
        rule: φ without branches.
    """
    told = float(told_N @ told_N)
    slope = float(told_N @ gain_N) / told if told > 0 else 0.0
    return float(np.clip(slope / scale, rule / _FURTHEST, rule * _FURTHEST)) if slope > 0 else rule
