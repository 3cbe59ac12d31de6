"""The mixture of the domains' n-gram models under which the tasks' text is most likely.

Each domain has an interpolated n-gram model of its training text:

    p_n(w | h) = (c(h w) + d(h) · p_{n−1}(w | h')) / (c(h) + d(h)),        p_0 = 1/V

c counts n-grams, d(h) is the number of different tokens that follow the history h, h' is h without its first token
(Witten-Bell smoothing, Chen and Goodman 1998, section 2.4, which has nothing to tune). An unseen history passes its
shorter one through. The first tokens of a text have shorter histories. An n-gram is one 64-bit number, so counting is
sorting: of the order of a second per million tokens and domain. Only one domain's n-grams of one order are held at a
time.

The mixture is the likeliest of these models (`likeliest_mixture`), where tasks weigh the same, and so do the tokens
of a task.

No text passes through a language model.

Axes: K domains, N scored tokens, S tokens of a piece or row, U distinct n-grams.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.baselines.baseline import Baseline, Detail, within_bounds
from tikmix_pipeline.baselines.likeliest_mixture import LikeliestMixture, likeliest_mixture
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.baselines import NgramParameters
from tikmix_pipeline.progress import progress_bar

Tokens = npt.NDArray[np.integer]
Integers = npt.NDArray[np.int64]

_LARGEST = 2**63
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
    """Return the mixture of n-gram models of the training text that explains the targets best, moved inside the bounds.

    Of the texts, by target (`influence.counterfactual.scored_texts`), tokens that carry loss count; the others are
    history. Of multiple choice the right options count.

    Raises:
        TikmixError: `baselines.ngram.order` is too large for the vocabulary.
    """
    check_order(parameters, shards.vocabulary_size)
    scored, carries_N, weight_N = _scored(texts, shards.vocabulary_size)
    probability_KN = np.empty((len(shards.domains), len(weight_N)))
    read = len(scored)
    with progress_bar("N-gram models", len(shards.domains), "domain") as bar:
        for k, domain in enumerate(shards.domains):
            pieces = _pieces(shards, domain, parameters.max_tokens)
            read += sum(map(len, pieces))
            probability_KN[k] = token_probabilities(pieces, scored, order=parameters.order)[carries_N]
            bar.update(1)
    fit = likeliest_mixture(probability_KN, weight_N, iterations=parameters.iterations, tolerance=parameters.tolerance)
    weights, moved = within_bounds(bounds, dict(zip(shards.domains, fit.weights_K.tolist(), strict=True)))
    details = {**_bits_per_token(fit, shards.domains), "tokens_read": read}
    notes = fit.notes("baselines.ngram", iterations=parameters.iterations, tolerance=parameters.tolerance)
    return Baseline(weights, notes=(*notes, *moved), details=details)


def _bits_per_token(fit: LikeliestMixture, domains: Sequence[str]) -> dict[str, Detail]:
    """Return the bits per token that the tasks' text takes."""
    alone = dict(zip(domains, (-fit.alone_K / np.log(2)).tolist(), strict=True))
    bits = [-likelihood / float(np.log(2)) for likelihood in (fit.likelihoods[0], fit.likelihoods[-1])]
    return {
        "bits_per_token": bits[1],
        "bits_per_token_uniform": bits[0],
        "bits_per_token_alone": alone,
        "iterations": len(fit.likelihoods) - 1,
    }


def check_order(parameters: NgramParameters, vocabulary_size: int) -> None:
    """Refuse n-grams too long to be counted.

    Raises:
        TikmixError: `baselines.ngram.order` is too large for so many token ids.
    """
    longest = longest_order(vocabulary_size)
    if parameters.order > longest:
        raise TikmixError(
            f"baselines.ngram.order is {parameters.order}, but n-grams of {vocabulary_size} token ids are counted up "
            f"to order {longest}. Lower it."
        )


def longest_order(vocabulary_size: int) -> int:
    """Return the most tokens whose n-gram fits into a number."""
    return next(order for order in itertools.count(1) if vocabulary_size ** (order + 1) > _LARGEST)


class Texts:
    """Texts back to back, and the n-grams that end at each of their tokens."""

    def __init__(self, texts: Sequence[Tokens], *, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size
        self._tokens_N = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
        self._position_N = np.concatenate([np.arange(len(text)) for text in texts])

    def __len__(self) -> int:
        """Return N."""
        return len(self._tokens_N)

    def ending_with(self, order: int) -> tuple[npt.NDArray[np.intp], Integers]:
        """Return the places where an n-gram of this order ends, and the n-grams."""
        where = np.flatnonzero(self._position_N >= order - 1)
        ngrams = np.zeros(len(where), dtype=np.int64)
        for back in range(order - 1, -1, -1):
            ngrams = ngrams * self.vocabulary_size + self._tokens_N[where - back]
        return where, ngrams


def token_probabilities(pieces: Sequence[Tokens], texts: Texts, *, order: int) -> FloatArray:
    """Return the probability (N,) of each token of the texts under the n-gram model of one-dimensional pieces.

    No n-gram reaches from one piece of the training text into the next; the order is at most `longest_order`.
    """
    p_N = np.full(len(texts), 1 / texts.vocabulary_size)
    for n in range(1, order + 1):
        where, ngrams = texts.ending_with(n)
        count, total, distinct = _counts(pieces, n, texts.vocabulary_size, ngrams)
        known = total > 0
        shorter = p_N[where[known]]
        p_N[where[known]] = (count[known] + distinct[known] * shorter) / (total[known] + distinct[known])
    return p_N


def _counts(
    pieces: Sequence[Tokens], order: int, vocabulary_size: int, wanted: Integers
) -> tuple[Integers, Integers, Integers]:
    """Return, for each wanted n-gram, `c(h w)`, `c(h)` and `d(h)` in pieces of text."""
    each = [_ngrams(piece, order, vocabulary_size) for piece in pieces if len(piece) >= order]
    ngrams_U, counts_U = np.unique(np.concatenate([np.zeros(0, np.int64), *each]), return_counts=True)
    # the histories of ascending n-grams ascend as well
    histories, firsts = np.unique(ngrams_U // vocabulary_size, return_index=True)
    ends = np.append(firsts, len(ngrams_U))
    totals = np.diff(np.append(0, np.cumsum(counts_U))[ends])
    asked = wanted // vocabulary_size
    return _at(ngrams_U, counts_U, wanted), _at(histories, totals, asked), _at(histories, np.diff(ends), asked)


def _ngrams(piece: Tokens, order: int, vocabulary_size: int) -> Integers:
    length = len(piece) - order + 1
    ngrams = np.zeros(length, dtype=np.int64)
    for start in range(order):
        ngrams *= vocabulary_size
        ngrams += piece[start : start + length]
    return ngrams


def _at(keys: Integers, values: Integers, wanted: Integers) -> Integers:
    """Return the values of keys, 0 for one that is not there."""
    if not len(keys):
        return np.zeros_like(wanted)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def _scored(
    texts: Mapping[str, Sequence[TokenBatch]], vocabulary_size: int
) -> tuple[Texts, npt.NDArray[np.bool_], FloatArray]:
    """Return the targets' texts, which of their tokens count, and how much each of these weighs."""
    rows, carried, weights = [], [], []
    for given in texts.values():
        batches = [batch.answers() if isinstance(batch, ChoiceBatch) else batch for batch in given]
        total = sum(batch.loss_tokens for batch in batches)
        for batch in batches:
            for tokens_S, loss_S in zip(batch.tokens_BS, batch.loss_BS, strict=True):
                end = int(np.flatnonzero(loss_S)[-1]) + 1  # what follows is padding
                rows.append(tokens_S[:end])
                carried.append(loss_S[:end])
                weights.append(np.full(int(loss_S.sum()), 1 / (len(texts) * total)))
    return Texts(rows, vocabulary_size=vocabulary_size), np.concatenate(carried), np.concatenate(weights)


def _pieces(shards: TokenShards, domain: str, max_tokens: int) -> list[Tokens]:
    """Return the training text of a domain in one piece, or `max_tokens` of it in pieces spread evenly."""
    tokens = shards.tokens(domain) - 1
    longest = max(1, min(_PIECE_TOKENS, max_tokens // _FEWEST_PIECES))
    windows = shards.windows(domain, tokens // -(-tokens // longest) if tokens > max_tokens else tokens)
    count = min(len(windows), max(1, max_tokens // windows.context))
    return list(windows.gather(np.linspace(0, len(windows) - 1, count).astype(np.int64)))
