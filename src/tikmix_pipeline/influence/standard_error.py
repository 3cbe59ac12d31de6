"""Group Influence and its standard error from chunk-by-chunk products.

With M chunks on one side and L on the other, `I[t, m, j, l] = g_{t,m}ᵀ f(C) g_{j,l}`. Weighting chunks by their
loss-carrying tokens gives the product of the full means exactly:

    S[t, j] = Σ_m Σ_l u_m v_l I[t, m, j, l],      u_m = n_{t,m} / n_t,   v_l = n_{j,l} / n_j.

S is bilinear in two independent averages, so its variance has a task component, a domain component and their
interaction, as in a two-way random-effects table without replicates. With equal chunks,

    var S = var_m(row means)/M + var_l(column means)/L − var(residuals)/(M L),

unbiased: each of the first two terms holds the interaction once, and the third, estimated from the doubly centred
residuals with (M−1)(L−1) degrees of freedom, takes the double count away. A negative component of variance counts as
zero, so the result is never below the larger of the first two terms. Chunks of unequal size enter with their weights:
where the variance of a chunk is inverse to its tokens, Σ u_m² (r_m − r̄)² / (1 − Σ u_m²) is unbiased for the first term.

A combination Σ_k c_k S[t, k] over domains (an effect, a mixture's gain) has the task sample in common and the domains'
samples for itself: its row means are the combined row means, while the other two terms add up with c_k².

The error is that of the sampled sequences at a fixed checkpoint and a fixed curvature: the curvature's own noise, which
all entries share, is not in it.

**Rank stability** asks the same of ranks: how far two disjoint halves of a measurement agree. Either half has half the
chunks of every task and every domain, so it is what a measurement on half the text would have given, and the two share
nothing but the checkpoint and its curvature. The difference between halves has twice the standard error of the whole:
agreement of halves is a cautious bound on how far the whole would come out the same again.

Axes: T tasks, K domains, M chunks of a task, L chunks of a domain.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.statistics import mean_of_defined, spearman

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SPLITS = 16
"""Random splits that the agreement of halves is averaged over."""


def influence_with_error(
    products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts
) -> tuple[Floats, Floats]:
    """Reduce the table of chunk products to Group Influence and its standard error, (T, K), in the products' unit.

    There are at least two chunks on either side, all with loss-carrying tokens.
    """
    return Spread.of(products_TMKL, task_tokens_TM, domain_tokens_KL).combined(np.eye(products_TMKL.shape[2]))


def influence_of_chunks(products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts) -> Floats:
    """Return Group Influence (T, K) alone."""
    influence_TK: Floats = np.einsum(
        "tmkl,tm,kl->tk", products_TMKL, _shares(task_tokens_TM), _shares(domain_tokens_KL), optimize=True
    )
    return influence_TK


@dataclass(frozen=True)
class Spread:
    """How a table of chunk products spreads over the chunks of either side."""

    row_TMK: Floats
    """Influence from one chunk of a task."""
    weight_TM: Floats
    """The task chunks' shares of tokens."""
    domain_TK: Floats
    """Variance of the influence that the domain's sample brings, interaction included."""
    interaction_TK: Floats
    """Variance of the influence from the interaction of the two samples."""

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
    """Return 1 / (1 − Σ u²) per set: M / (M − 1) for equal chunks."""
    factor: Floats = 1 / (1 - (shares**2).sum(axis=1))
    return factor


def rank_stability(products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts) -> Floats:
    """Return, per task, Spearman's correlation over domains between the influence from two halves: (T,).

    It is averaged over splits; nan where a task ranks nothing, as with a single domain or without any influence.
    """
    halves = influence_of_halves(products_TMKL, task_tokens_TM, domain_tokens_KL, splits=SPLITS)
    return mean_of_defined(np.array([spearman(first, second) for first, second in halves]), axis=0)


def influence_of_halves(
    products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts, *, splits: int, halve_tasks: bool = True
) -> Iterator[tuple[Floats, Floats]]:
    """Yield the influence (T, K) from either half, for so many random splits.

    Without `halve_tasks` all of the tasks' text is in either half, to see the domains' error alone; the domains are
    split in the same ways.
    """
    of_tasks, of_domains = np.random.default_rng([0, 0]), np.random.default_rng([0, 1])
    everything = np.arange(products_TMKL.shape[1])
    for _ in range(splits):
        domain_halves = _halves(products_TMKL.shape[3], of_domains)
        task_halves = _halves(len(everything), of_tasks) if halve_tasks else (everything, everything)
        first, second = (
            influence_of_chunks(products_TMKL[:, m][..., el], task_tokens_TM[:, m], domain_tokens_KL[:, el])
            for m, el in zip(task_halves, domain_halves, strict=True)
        )
        yield first, second


def _halves(chunks: int, generator: np.random.Generator) -> tuple[Counts, Counts]:
    """Give either half one of every two neighbours, so that growing chunks stay balanced; an odd one is left out."""
    first = generator.integers(0, 2, chunks // 2)
    pairs = 2 * np.arange(chunks // 2)
    return pairs + first, pairs + 1 - first
