"""Effects: influence as nats of a task's loss, for a move that can be made.

    effect[t, j] = calibration · 0.01 · (S[t, j] − Σ_k w_k S[t, k])

is how much lower the loss of task t ends, per loss-carrying token, when 1 % of the coming chunk's tokens goes to domain
j and is taken from all domains in proportion to the reference mixture w: that mixture becomes 0.99 w + 0.01 e_j.

Why nats: let θ follow gradient flow, dθ/ds = −Σ_j w_j ∇L_j(θ), for a time τ equal to the sum of the chunk's learning
rates, with losses that are quadratic with curvature C around the checkpoint. A change Δw of the mixture then moves
the end point by −f(C) Σ_j Δw_j g_j with f(μ) = (1 − exp(−μτ))/μ, and the loss of task t by −Σ_j Δw_j S[t, j]. So with
`influence.inverse=horizon` and `influence.damping_unit=horizon` (λ = 1/τ at `damping` 1) S itself is in nats per unit
of mixture. That holds for gradient descent; AdamW moves further along flat directions, and any other inverse or damping
has another scale. What `validate` measures on real branches of training then sets the scale: `influence.calibration`.

Its standard error is that of the same combination of part products (`standard_error.Spread.combined`): the task's
sample is shared by all domains, whose own samples are independent. It leaves out the error of the calibration.

Axes: T tasks, K domains, M parts of a task, L parts of a domain.
"""

import numpy as np

from tikmix_pipeline.influence.standard_error import Counts, Floats, Spread

MOVED_SHARE = 0.01
"""Share of the coming chunk's tokens that an effect is stated for."""


def effect_with_error(
    products_TMKL: Floats,
    task_tokens_TM: Counts,
    domain_tokens_KL: Counts,
    reference_K: Floats,
    *,
    calibration: float = 1.0,
) -> tuple[Floats, Floats]:
    """Return what moving 1 % of the tokens to each domain does for each task, and the standard error.

    Args:
        products_TMKL: part products.
        task_tokens_TM: loss-carrying tokens per part of each task.
        domain_tokens_KL: the same per part of each domain.
        reference_K: the mixture the tokens are taken from, summing to one.
        calibration: measured over predicted effect, `influence.calibration`.

    Returns:
        `(effect_TK, effect_stderr_TK)` in nats per loss-carrying token of the task; positive where its loss falls. The
        effects of a task, weighted by the reference mixture, sum to zero.
    """
    factors_KK = calibration * MOVED_SHARE * (np.eye(len(reference_K)) - reference_K)
    return Spread.of(products_TMKL, task_tokens_TM, domain_tokens_KL).combined(factors_KK)
