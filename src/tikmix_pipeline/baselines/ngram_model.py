"""Interpolated n-gram models: the probability of every token of some texts under the text of a domain.

    p_n(w | h) = (c(h w) + d(h) · p_{n−1}(w | h')) / (c(h) + d(h)),        p_0 = 1/V

c counts n-grams, d(h) is the number of different tokens that follow the history h, h' is h without its first token
(Witten-Bell smoothing, Chen and Goodman 1998, section 2.4, which has nothing to tune). An unseen history passes its
shorter one through. The first tokens of a text have shorter histories.

An n-gram is one 64-bit number, so counting is sorting: of the order of a second per million tokens and domain. Only
one domain's n-grams of one order are held at a time.

Axes: R pieces of text, S tokens of a piece, U distinct n-grams, N tokens of the texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.simplex import FloatArray

Tokens = npt.NDArray[np.integer]
Integers = npt.NDArray[np.int64]

_LARGEST = 2**63


def longest_order(vocabulary_size: int) -> int:
    """Return the most tokens whose n-gram fits into a number."""
    order = 1
    while vocabulary_size ** (order + 1) <= _LARGEST:
        order += 1
    return order


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
        return where, _ngrams_ending_at(self._tokens_N, where, order, self.vocabulary_size)


def _ngrams_ending_at(tokens_N: Integers, where: npt.NDArray[np.intp], order: int, vocabulary_size: int) -> Integers:
    ngrams = np.zeros(len(where), dtype=np.int64)
    for back in range(order - 1, -1, -1):
        ngrams = ngrams * vocabulary_size + tokens_N[where - back]
    return ngrams


def token_probabilities(pieces: Sequence[Tokens], texts: Texts, *, order: int) -> FloatArray:
    """Return the probability (N,) of each token of the texts under the n-gram model of `pieces`.

    Args:
        pieces: the training text, in one-dimensional pieces; no n-gram reaches from one into the next.
        texts: what is scored.
        order: tokens of the longest n-gram, at most `longest_order`.
    """
    p_N = np.full(len(texts), 1 / texts.vocabulary_size)
    for n in range(1, order + 1):
        where, ngrams = texts.ending_with(n)
        count, total, distinct = _Counts.of(pieces, n, texts.vocabulary_size).look_up(ngrams)
        known = total > 0
        shorter = p_N[where[known]]
        p_N[where[known]] = (count[known] + distinct[known] * shorter) / (total[known] + distinct[known])
    return p_N


@dataclass(frozen=True, eq=False)
class _Counts:
    """All n-grams of one order of a domain, and all histories before their last token, both in ascending order."""

    vocabulary_size: int
    ngrams_U: Integers
    counts_U: Integers
    histories: Integers
    totals: Integers
    distinct: Integers

    @classmethod
    def of(cls, pieces: Sequence[Tokens], order: int, vocabulary_size: int) -> "_Counts":
        """Count the n-grams of pieces of text."""
        each = [_ngrams(piece, order, vocabulary_size) for piece in pieces if len(piece) >= order]
        ngrams_U, counts_U = np.unique(np.concatenate([np.zeros(0, np.int64), *each]), return_counts=True)
        # the histories of ascending n-grams ascend as well
        histories, firsts = np.unique(ngrams_U // vocabulary_size, return_index=True)
        ends = np.append(firsts, len(ngrams_U))
        running = np.append(0, np.cumsum(counts_U))
        return cls(vocabulary_size, ngrams_U, counts_U, histories, np.diff(running[ends]), np.diff(ends))

    def look_up(self, ngrams: Integers) -> tuple[Integers, Integers, Integers]:
        """Return, for each n-gram, `c(h w)`, `c(h)` and `d(h)`."""
        count = _at(self.ngrams_U, self.counts_U, ngrams)
        histories = ngrams // self.vocabulary_size
        return count, _at(self.histories, self.totals, histories), _at(self.histories, self.distinct, histories)


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
