"""The mixture of the domains' n-gram models under which the tasks' text is most likely.

Each domain has an interpolated n-gram model of its training text (`ngram_model`). With q_k(i) the probability that the
model of domain k gives to token i of the tasks' text, expectation-maximisation climbs

    L(w) = Σ_i ω_i · log Σ_k w_k q_k(i),        w_k ← Σ_i ω_i · w_k q_k(i) / Σ_j w_j q_j(i)

where ω weighs tasks equally and tokens of a task equally. L is concave, so the end is the best there is: no mixture is
likelier by more than `max_k Σ_i ω_i q_k(i) / Σ_j w_j q_j(i) − 1`, which is what iterations stop by.

Costs no pass through a language model.

Axes: K domains, N scored tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.baselines.ngram_model import Texts, longest_order, token_probabilities
from tikmix_pipeline.baselines.result import Baseline, inside
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.baselines import NgramParameters
from tikmix_pipeline.progress import progress_bar

_PIECE_TOKENS = 2**16
_FEWEST_PIECES = 16
"""A domain of which only a part is read is read in so many places at least."""


def ngram(
    shards: TokenShards,
    texts: Mapping[str, Sequence[TokenBatch]],
    *,
    parameters: NgramParameters,
    bounds: Bounds | None = None,
) -> Baseline:
    """Return the mixture of n-gram models that explains the targets best.

    Args:
        shards: the corpus, of whose training text the models are.
        texts: what is to be explained, by target (`influence.counterfactual.scored_texts`); tokens that carry loss
            count, the others are history.
        parameters: order, and when to stop.
        bounds: the mixture is moved inside them.

    Raises:
        TikmixError: `baselines.ngram.order` is too large for the vocabulary.
    """
    longest = longest_order(shards.vocabulary_size)
    if parameters.order > longest:
        raise TikmixError(
            f"baselines.ngram.order is {parameters.order}, but n-grams of {shards.vocabulary_size} token ids are "
            f"counted up to order {longest}. Lower it."
        )
    scored = _Scored.of(texts, shards.vocabulary_size)
    probability_KN = np.empty((len(shards.domains), len(scored.weight_N)))
    read = len(scored.texts)
    with progress_bar("N-gram models", len(shards.domains), "domain") as bar:
        for k, domain in enumerate(shards.domains):
            pieces = _pieces(shards, domain, parameters.max_tokens)
            read += sum(map(len, pieces))
            probability_KN[k] = token_probabilities(pieces, scored.texts, order=parameters.order)[scored.carries_N]
            bar.update(1)
    fit = likeliest_mixture(
        probability_KN, scored.weight_N, iterations=parameters.iterations, tolerance=parameters.tolerance
    )
    weights, notes = inside(bounds, dict(zip(shards.domains, fit.weights_K.tolist(), strict=True)))
    details = fit.details(shards.domains) | {"tokens_read": read}
    return Baseline(weights, notes=(*fit.notes(parameters), *notes), details=details)


@dataclass(frozen=True, eq=False)
class Fit:
    """What expectation-maximisation found.

    Attributes:
        weights_K: the mixture.
        likelihoods: L before each iteration and after the last, in nats per token.
        gap: at most so much is missing from the highest L there is.
        alone_K: L of each domain alone.
    """

    weights_K: FloatArray
    likelihoods: list[float]
    gap: float
    alone_K: FloatArray

    def notes(self, parameters: NgramParameters) -> tuple[str, ...]:
        """Say so if it was stopped early."""
        if self.gap <= parameters.tolerance:
            return ()
        return (
            f"Expectation-maximisation was stopped after baselines.ngram.iterations = {parameters.iterations}, up to "
            f"{self.gap:.1g} nats per token from the best mixture.",
        )

    def details(self, domains: Sequence[str]) -> dict[str, Any]:
        """Return the bits per token that the tasks' text takes."""
        alone = dict(zip(domains, (-self.alone_K / np.log(2)).tolist(), strict=True))
        bits = [-likelihood / float(np.log(2)) for likelihood in (self.likelihoods[0], self.likelihoods[-1])]
        return {
            "bits_per_token": bits[1],
            "bits_per_token_uniform": bits[0],
            "bits_per_token_alone": alone,
            "iterations": len(self.likelihoods) - 1,
        }


def likeliest_mixture(probability_KN: FloatArray, weight_N: FloatArray, *, iterations: int, tolerance: float) -> Fit:
    """Return the weights of K models under which tokens are most likely, from equal weights on.

    Args:
        probability_KN: of each token under each model; positive.
        weight_N: ω, which sums to 1.
        iterations: at most so many.
        tolerance: stop once no mixture is likelier by more, in nats per token.
    """
    weights_K = np.full(len(probability_KN), 1 / len(probability_KN))
    mixed_N = weights_K @ probability_KN
    likelihoods = [float(weight_N @ np.log(mixed_N))]
    for _ in range(iterations):
        gain_K = probability_KN @ (weight_N / mixed_N)
        if gain_K.max() - 1 <= tolerance:
            break
        weights_K = weights_K * gain_K
        weights_K /= weights_K.sum()
        mixed_N = weights_K @ probability_KN
        likelihoods.append(float(weight_N @ np.log(mixed_N)))
    gap = float((probability_KN @ (weight_N / mixed_N)).max()) - 1
    return Fit(weights_K, likelihoods, gap, np.log(probability_KN) @ weight_N)


@dataclass(frozen=True, eq=False)
class _Scored:
    """The targets' texts, which of their tokens count, and how much each of these weighs."""

    texts: Texts
    carries_N: npt.NDArray[np.bool_]
    weight_N: FloatArray

    @classmethod
    def of(cls, texts: Mapping[str, Sequence[TokenBatch]], vocabulary_size: int) -> "_Scored":
        rows, carried, weights = [], [], []
        for batches in texts.values():
            total = sum(batch.loss_tokens for batch in batches)
            for batch in batches:
                for tokens_S, loss_S in zip(batch.tokens_BS, batch.loss_BS, strict=True):
                    end = int(np.flatnonzero(loss_S)[-1]) + 1  # what follows is padding
                    rows.append(tokens_S[:end])
                    carried.append(loss_S[:end])
                    weights.append(np.full(int(loss_S.sum()), 1 / (len(texts) * total)))
        return cls(Texts(rows, vocabulary_size=vocabulary_size), np.concatenate(carried), np.concatenate(weights))


def _pieces(shards: TokenShards, domain: str, max_tokens: int) -> list[npt.NDArray[np.integer]]:
    """Return the training text of a domain in one piece, or `max_tokens` of it in pieces spread evenly."""
    tokens = shards.tokens(domain) - 1
    longest = max(1, min(_PIECE_TOKENS, max_tokens // _FEWEST_PIECES))
    windows = shards.windows(domain, tokens // -(-tokens // longest) if tokens > max_tokens else tokens)
    count = min(len(windows), max(1, max_tokens // windows.context))
    return list(windows.gather(np.linspace(0, len(windows) - 1, count).astype(np.int64)))
