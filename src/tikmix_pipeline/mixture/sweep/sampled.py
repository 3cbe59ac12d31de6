"""The paper's response: Group Influence of a sample of tokens drawn by a candidate, from chunks measured already.

A sample of N tokens drawn by w holds `w_j N` of domain j. Of each domain as many of its gradient chunks are drawn, with
replacement, as these tokens fill, the last one by a fraction; the influence of a chunk is known, so the sample's is

    P_t = Σ_j w_j · Σ_l c_j,l S[t, j, l] / Σ_l c_j,l        with c the times that chunk l of domain j was drawn,

and costs no pass through the model. Up to the noise of the draw that is `S w`: linear in w.

Chunks may differ in size (`influence.tokens: auto` doubles them). A chunk is as likely to be drawn as any of its tokens
is, so that the mean of the draws is the influence of the domain's tokens all together. Chunks of the mean size are
counted: were tokens independent, a chunk of τ tokens would vary as 1/τ, and so many draws as much as so many tokens.

Axes: N candidates, R rounds, T tasks, K domains, L gradient chunks of a domain.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.mixture.influence_matrix import influence_rows, round_shares, unit_factors
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import run_table
from tikmix_pipeline.parameters.decision import AveragingParameters
from tikmix_pipeline.statistics import pearson

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)


def sampled_responses(
    ratios: "pd.DataFrame",
    chunks: Sequence["pd.DataFrame"],
    *,
    tokens: int | None,
    averaging: AveragingParameters,
    seed: int,
    influences: Sequence["pd.DataFrame"] = (),
) -> "pd.DataFrame":
    """Return each candidate's influence with its sign turned, in Olmix's columns.

    The chunks are `part_influence.parquet` of the rounds so far, oldest first; the tasks are those of the last. The
    rounds have the say that they have in D's decision, by `influence.parquet` of each; without these, the same say.
    """
    domains, tasks = list(ratios.columns[1:]), list(dict.fromkeys(chunks[-1]["task"]))
    tables = chunks[-1:] if averaging.memory == "none" else chunks
    found = [by_chunk(table, tasks, domains) for table in tables]
    factors_RT = unit_factors([whole_influence(*one) for one in found])
    if averaging.memory == "precision" and influences:
        stderrs = [influence_rows(table, tasks, domains, "stderr") for table in influences]
        factors_RT = len(found) * round_shares(factors_RT, stderrs) * factors_RT
    total_NT = sampled_influence(
        ratios[domains].to_numpy(), *zip(*found, strict=True), tokens=tokens, factors_RT=factors_RT, seed=seed
    )
    return run_table(dict(zip(ratios["run"], (-total_NT).tolist(), strict=True)), tasks)


def exact_beside_sampled(
    tasks: Sequence[str],
    exact_NT: FloatArray,
    stderr_NT: FloatArray,
    ratios: "pd.DataFrame",
    chunks: "pd.DataFrame",
    *,
    tokens: int | None,
    seed: int,
) -> "pd.DataFrame":
    """Tabulate the influence of candidates on tokens of their own beside that of samples, and the additive `S w`.

    How well they agree is logged.

    Args:
        exact_NT: the influence of the first candidates, measured on tokens of their own.
        stderr_NT: its standard errors.
        ratios: all candidates, so that the first have the draws that they have among all.
        chunks: `part_influence.parquet` of the round.
    """
    import pandas as pd

    count, weights = len(exact_NT), ratios.set_index("run")
    influence_TKL, tokens_KL = by_chunk(chunks, tasks, list(weights.columns))
    unit_1T = np.ones((1, len(tasks)))
    sampled_NT = sampled_influence(
        weights.to_numpy(), [influence_TKL], [tokens_KL], tokens=tokens, factors_RT=unit_1T, seed=seed
    )[:count]
    additive_NT = weights.iloc[:count].to_numpy() @ whole_influence(influence_TKL, tokens_KL).T
    _LOG.info(
        "Influence of %d candidates on tokens of their own: %.2f times that of their sampled parts; off the additive "
        "S w by %.2f times as much as these are; correlation over candidates with S w %.2f, that of the parts %.2f",
        count,
        (exact_NT.mean(axis=0) / sampled_NT.mean(axis=0)).mean(),
        ((exact_NT - additive_NT).std(axis=0) / (sampled_NT - additive_NT).std(axis=0)).mean(),
        mean_correlation(exact_NT, additive_NT),
        mean_correlation(sampled_NT, additive_NT),
    )
    return pd.DataFrame(
        {
            "run": np.repeat(ratios["run"].to_numpy()[:count], len(tasks)),
            "task": np.tile(tasks, count),
            "exact": exact_NT.ravel(),
            "exact_stderr": stderr_NT.ravel(),
            "sampled": sampled_NT.ravel(),
            "additive": additive_NT.ravel(),
        }
    )


def by_chunk(table: "pd.DataFrame", tasks: Sequence[str], domains: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Return the influence (T, K, L) of every gradient chunk of a table, and the tokens (K, L) of each."""
    wide = table.set_index(["task", "domain", "part"]).unstack("part")
    rows = wide.loc[[(task, domain) for task in tasks for domain in domains]]
    shape = len(tasks), len(domains), -1
    influence_TKL, tokens_TKL = (rows[name].to_numpy(dtype=float).reshape(shape) for name in ("influence", "tokens"))
    return influence_TKL, tokens_TKL[0]


def sampled_influence(
    weights_NK: FloatArray,
    influences: Sequence[FloatArray],
    chunk_tokens: Sequence[FloatArray],
    *,
    tokens: int | None,
    factors_RT: FloatArray,
    seed: int,
) -> FloatArray:
    """Return the total influence P of every candidate's sample on every task, (N, T); of several rounds, the mean.

    Args:
        influences: per round S (T, K, L), the influence of each chunk of each domain.
        chunk_tokens: per round the tokens (K, L) of each chunk.
        tokens: N, the size of a sample; by default as many as were measured.
        factors_RT: what each round's influence is multiplied with (`unit_factors`).
    """
    generator = np.random.default_rng(seed)
    total_NT = np.zeros((len(weights_NK), factors_RT.shape[1]))
    for influence_TKL, tokens_KL, factor_T in zip(influences, chunk_tokens, factors_RT, strict=True):
        size = tokens if tokens is not None else int(tokens_KL.sum())
        for k, weight_N in enumerate(weights_NK.T):
            share_NL = _draws(weight_N * size / tokens_KL[k].mean(), tokens_KL[k], generator)
            total_NT += factor_T * weight_N[:, None] * (share_NL @ influence_TKL[:, k].T)
    return total_NT / len(influences)


def _draws(chunks_N: FloatArray, tokens_L: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Draw so many chunks of these sizes for each candidate; return the share (N, L) of each in what was drawn."""
    whole_N = np.floor(chunks_N).astype(np.int64)
    likely_L = tokens_L / tokens_L.sum()
    drawn_NL = generator.multinomial(whole_N, likely_L).astype(np.float64)
    last_N = generator.choice(len(likely_L), size=len(chunks_N), p=likely_L)
    # a sample of next to nothing of a domain still has the influence of some chunk, and weighs next to nothing
    drawn_NL[np.arange(len(chunks_N)), last_N] += np.maximum(chunks_N - whole_N, 1e-9)
    share_NL: FloatArray = drawn_NL / drawn_NL.sum(axis=1, keepdims=True)
    return share_NL


def whole_influence(influence_TKL: FloatArray, tokens_KL: FloatArray) -> FloatArray:
    """Return the influence (T, K) of whole domains: the mean of their chunks by tokens."""
    influence_TK: FloatArray = np.einsum("tkl,kl->tk", influence_TKL, tokens_KL) / tokens_KL.sum(axis=1)
    return influence_TK


def mean_correlation(one_NT: FloatArray, other_NT: FloatArray) -> float:
    """Return the Pearson correlation over candidates, averaged over tasks; nan where one of them does not vary."""
    return float(np.mean(pearson(one_NT.T, other_NT.T)))
