"""Group Influence and its standard error from part-by-part products.

With M parts on both sides, `I[t, m, j, l] = g_{t,m}ᵀ (C + λI)⁻¹ g_{j,l}`. Weighting parts by their loss-carrying
tokens gives the product of the full means exactly:

    S[t, j] = Σ_m Σ_l u_m v_l I[t, m, j, l],      u_m = n_{t,m} / n_t,   v_l = n_{j,l} / n_j.

S is bilinear in two independent averages, so its variance has a task component, a domain component and their
interaction, as in a two-way random-effects table without replicates. With equal parts,

    var S = var_m(row means)/M + var_l(column means)/M − var(residuals)/M²,

unbiased: each of the first two terms holds the interaction once, and the third, estimated from the doubly centred
residuals with (M−1)² degrees of freedom, takes the double count away. A negative component of variance counts as zero,
so the result is never below the larger of the first two terms. Parts of unequal size enter with their weights.

The error is that of the sampled sequences at a fixed checkpoint and a fixed curvature: the curvature's own noise, which
all entries share, is not in it.

Axes: T tasks, K domains, M parts of a task, L parts of a domain.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def influence_with_error(
    products_TMKL: Floats, task_tokens_TM: npt.NDArray[np.int64], domain_tokens_KL: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Reduce the table of part products to Group Influence and its standard error.

    Args:
        products_TMKL: part products, in nats per token (squared gradients over curvature).
        task_tokens_TM: loss-carrying tokens per part of each task, all positive; at least two parts.
        domain_tokens_KL: the same per part of each domain.

    Returns:
        `(influence_TK, stderr_TK)` in the unit of the products.
    """
    weight_TM = task_tokens_TM / task_tokens_TM.sum(axis=1, keepdims=True)
    weight_KL = domain_tokens_KL / domain_tokens_KL.sum(axis=1, keepdims=True)
    row_TMK = np.einsum("tmkl,kl->tmk", products_TMKL, weight_KL)
    column_TKL = np.einsum("tmkl,tm->tkl", products_TMKL, weight_TM)
    influence_TK = np.einsum("tmk,tm->tk", row_TMK, weight_TM)

    task_factor, domain_factor = _bessel(weight_TM), _bessel(weight_KL)
    tasks_TK = task_factor * np.einsum("tm,tmk->tk", weight_TM**2, (row_TMK - influence_TK[:, None]) ** 2)
    domains_TK = domain_factor * np.einsum("kl,tkl->tk", weight_KL**2, (column_TKL - influence_TK[..., None]) ** 2)
    residual_TMKL = products_TMKL - row_TMK[..., None] - column_TKL[:, None] + influence_TK[:, None, :, None]
    interaction_TK = np.einsum("tm,kl,tmkl->tk", weight_TM**2, weight_KL**2, residual_TMKL**2)
    interaction_TK *= task_factor * domain_factor
    doubled_TK = np.minimum(interaction_TK, np.minimum(tasks_TK, domains_TK))
    return influence_TK, np.sqrt(tasks_TK + domains_TK - doubled_TK)


def _bessel(weights: Floats) -> float:
    parts = int(weights.shape[1])
    return parts / (parts - 1)
