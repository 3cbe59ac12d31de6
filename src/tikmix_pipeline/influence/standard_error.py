"""Group Influence and its standard error from part-by-part products.

With M parts on one side and L on the other, `I[t, m, j, l] = g_{t,m}ᵀ f(C) g_{j,l}`. Weighting parts by their
loss-carrying tokens gives the product of the full means exactly:

    S[t, j] = Σ_m Σ_l u_m v_l I[t, m, j, l],      u_m = n_{t,m} / n_t,   v_l = n_{j,l} / n_j.

S is bilinear in two independent averages, so its variance has a task component, a domain component and their
interaction, as in a two-way random-effects table without replicates. With equal parts,

    var S = var_m(row means)/M + var_l(column means)/L − var(residuals)/(M L),

unbiased: each of the first two terms holds the interaction once, and the third, estimated from the doubly centred
residuals with (M−1)(L−1) degrees of freedom, takes the double count away. A negative component of variance counts as
zero, so the result is never below the larger of the first two terms. Parts of unequal size enter with their weights:
where the variance of a part is inverse to its tokens, Σ u_m² (r_m − r̄)² / (1 − Σ u_m²) is unbiased for the first term.

A combination Σ_k c_k S[t, k] over domains (an effect, a mixture's gain) has the task sample in common and the domains'
samples for itself: its row means are the combined row means, while the other two terms add up with c_k².

The error is that of the sampled sequences at a fixed checkpoint and a fixed curvature: the curvature's own noise, which
all entries share, is not in it.

Axes: T tasks, K domains, M parts of a task, L parts of a domain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def influence_with_error(
    products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts
) -> tuple[Floats, Floats]:
    """Reduce the table of part products to Group Influence and its standard error.

    Args:
        products_TMKL: part products, in nats per token (squared gradients over curvature).
        task_tokens_TM: loss-carrying tokens per part of each task, all positive; at least two parts.
        domain_tokens_KL: the same per part of each domain.

    Returns:
        `(influence_TK, stderr_TK)` in the unit of the products.
    """
    spread = Spread.of(products_TMKL, task_tokens_TM, domain_tokens_KL)
    return spread.combined(np.eye(products_TMKL.shape[2]))


def influence_of_parts(products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts) -> Floats:
    """Return Group Influence (T, K) alone."""
    influence_TK: Floats = np.einsum(
        "tmkl,tm,kl->tk", products_TMKL, _shares(task_tokens_TM), _shares(domain_tokens_KL), optimize=True
    )
    return influence_TK


@dataclass(frozen=True)
class Spread:
    """How a table of part products spreads over the parts of either side.

    Attributes:
        row_TMK: influence from one part of a task.
        weight_TM: the task parts' shares of tokens.
        domain_TK: variance of the influence that the domain's sample brings, interaction included.
        interaction_TK: variance of the influence from the interaction of the two samples.
    """

    row_TMK: Floats
    weight_TM: Floats
    domain_TK: Floats
    interaction_TK: Floats

    @classmethod
    def of(cls, products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts) -> "Spread":
        """Find the components of variance of every entry."""
        weight_TM, weight_KL = _shares(task_tokens_TM), _shares(domain_tokens_KL)
        row_TMK = np.einsum("tmkl,kl->tmk", products_TMKL, weight_KL)
        column_TKL = np.einsum("tmkl,tm->tkl", products_TMKL, weight_TM)
        influence_TK = np.einsum("tmk,tm->tk", row_TMK, weight_TM)
        bessel_K = _bessel(weight_KL)
        deviation_TKL = column_TKL - influence_TK[..., None]
        residual_TMKL = products_TMKL - row_TMK[..., None] - deviation_TKL[:, None]
        interaction_TK = np.einsum("tm,kl,tmkl->tk", weight_TM**2, weight_KL**2, residual_TMKL**2, optimize=True)
        return cls(
            row_TMK,
            weight_TM,
            bessel_K * np.einsum("kl,tkl->tk", weight_KL**2, deviation_TKL**2),
            _bessel(weight_TM)[:, None] * bessel_K * interaction_TK,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Spread":
        """Read what `to_dict` gave; other keys are ignored."""
        return cls(**{entry.name: np.array(content[entry.name]) for entry in fields(cls)})

    def combined(self, factors_JK: Floats) -> tuple[Floats, Floats]:
        """Return `Σ_k c_k S[t, k]` and its standard error, both (T, J), for J rows c of factors."""
        row_TMJ = self.row_TMK @ factors_JK.T
        value_TJ = np.einsum("tmj,tm->tj", row_TMJ, self.weight_TM)
        task_TJ = np.einsum("tm,tmj->tj", self.weight_TM**2, (row_TMJ - value_TJ[:, None]) ** 2)
        task_TJ *= _bessel(self.weight_TM)[:, None]
        domain_TJ, interaction_TJ = self.domain_TK @ factors_JK.T**2, self.interaction_TK @ factors_JK.T**2
        doubled_TJ = np.minimum(interaction_TJ, np.minimum(task_TJ, domain_TJ))
        return value_TJ, np.sqrt(task_TJ + domain_TJ - doubled_TJ)


def _shares(tokens: Counts) -> Floats:
    shares: Floats = tokens / tokens.sum(axis=1, keepdims=True)
    return shares


def _bessel(shares: Floats) -> Floats:
    """Return 1 / (1 − Σ u²) per set: M / (M − 1) for equal parts."""
    factor: Floats = 1 / (1 - (shares**2).sum(axis=1))
    return factor
