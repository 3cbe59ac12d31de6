"""The paper's response: Group Influence of a sample of tokens drawn by a candidate, from parts measured already.

A sample of N tokens drawn by w holds `w_j N` of domain j. Of each domain as many of its measured parts are drawn, with
replacement, as these tokens fill, the last one by a fraction; the influence of a part is known, so the sample's is

    P_t = Σ_j w_j · Σ_l c_j,l S[t, j, l] / Σ_l c_j,l         with c the times that part l of domain j was drawn,

and costs no pass through the model. Up to the noise of the draw that is `S w`: linear in w.

Parts may differ in size (`influence.tokens: auto` doubles them). A part is as likely to be drawn as any of its tokens
is, so that the mean of the draws is the influence of the domain's tokens all together. Parts of the mean size are
counted: were tokens independent, a part of τ tokens would vary as 1/τ, and so many draws as much as so many tokens.

Axes: N candidates, R rounds, T tasks, K domains, L parts of a domain.
"""

from collections.abc import Sequence

import numpy as np

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.statistics.correlations import pearson


def sampled_influence(
    weights_NK: FloatArray,
    parts: Sequence[FloatArray],
    part_tokens: Sequence[FloatArray],
    *,
    tokens: int | None,
    factors_RT: FloatArray,
    seed: int,
) -> FloatArray:
    """Return the total influence P of every candidate's sample on every task, (N, T); of several rounds, the mean.

    Args:
        weights_NK: the candidates.
        parts: per round S (T, K, L), the influence of each part of each domain.
        part_tokens: per round the tokens (K, L) of each part.
        tokens: N, the size of a sample; by default as many as were measured.
        factors_RT: what each round's influence is multiplied with (`memory.in_todays_units`).
        seed: decides the draws.
    """
    generator = np.random.default_rng(seed)
    total_NT = np.zeros((len(weights_NK), factors_RT.shape[1]))
    for influence_TKL, tokens_KL, factor_T in zip(parts, part_tokens, factors_RT, strict=True):
        size = tokens if tokens is not None else int(tokens_KL.sum())
        for k, weight_N in enumerate(weights_NK.T):
            share_NL = _draws(weight_N * size / tokens_KL[k].mean(), tokens_KL[k], generator)
            total_NT += factor_T * weight_N[:, None] * (share_NL @ influence_TKL[:, k].T)
    return total_NT / len(parts)


def _draws(parts_N: FloatArray, tokens_L: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Draw so many parts of these sizes for each candidate; return the share (N, L) of each in what was drawn."""
    whole_N = np.floor(parts_N).astype(np.int64)
    likely_L = tokens_L / tokens_L.sum()
    drawn_NL = generator.multinomial(whole_N, likely_L).astype(np.float64)
    last_N = generator.choice(len(likely_L), size=len(parts_N), p=likely_L)
    # a sample of next to nothing of a domain still has the influence of some part, and weighs next to nothing
    drawn_NL[np.arange(len(parts_N)), last_N] += np.maximum(parts_N - whole_N, 1e-9)
    share_NL: FloatArray = drawn_NL / drawn_NL.sum(axis=1, keepdims=True)
    return share_NL


def whole_influence(influence_TKL: FloatArray, tokens_KL: FloatArray) -> FloatArray:
    """Return the influence (T, K) of whole domains: the mean of their parts by tokens."""
    influence_TK: FloatArray = np.einsum("tkl,kl->tk", influence_TKL, tokens_KL) / tokens_KL.sum(axis=1)
    return influence_TK


def mean_correlation(one_NT: FloatArray, other_NT: FloatArray) -> float:
    """Return the Pearson correlation over candidates, averaged over tasks; nan where one of them does not vary."""
    return float(np.mean(pearson(one_NT.T, other_NT.T)))
