from collections import Counter

import numpy as np
import pytest

from tikmix_pipeline.baselines.ngram_model import Texts, longest_order, token_probabilities

VOCABULARY = 7


def slow_probability(pieces, history, token, order):
    """Witten-Bell by dictionaries, straight from the definition."""
    if order == 0:
        return 1 / VOCABULARY
    if len(history) < order - 1:
        return slow_probability(pieces, history, token, order - 1)
    history = tuple(history[len(history) - order + 1 :])
    counts = Counter()
    for piece in pieces:
        for end in range(order, len(piece) + 1):
            *before, last = piece[end - order : end]
            if tuple(before) == history:
                counts[last] += 1
    shorter = slow_probability(pieces, history[1:], token, order - 1)
    if not counts:
        return shorter
    return (counts[token] + len(counts) * shorter) / (counts.total() + len(counts))


def random_texts(seed, lengths):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY - 1, size=length).astype(np.uint16) for length in lengths]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equals_the_definition(order):
    pieces = random_texts(0, (40, 25, 2, 1))
    texts = random_texts(1, (12, 1, 2, 20))
    texts[0][3] = VOCABULARY - 1  # a token that the pieces lack
    found_N = token_probabilities(pieces, Texts(texts, vocabulary_size=VOCABULARY), order=order)
    slow_N = [
        slow_probability([piece.tolist() for piece in pieces], text[:i].tolist(), int(text[i]), order)
        for text in texts
        for i in range(len(text))
    ]
    np.testing.assert_allclose(found_N, slow_N, rtol=1e-12)


def test_probabilities_of_all_continuations_sum_to_one():
    pieces = random_texts(2, (60,))
    histories = [np.array([history, 1]) for history in range(VOCABULARY)]
    texts = Texts([np.append(h, token) for h in histories for token in range(VOCABULARY)], vocabulary_size=VOCABULARY)
    last = token_probabilities(pieces, texts, order=3).reshape(VOCABULARY, VOCABULARY, 3)[:, :, 2]
    np.testing.assert_allclose(last.sum(axis=1), 1, rtol=1e-12)


def test_text_of_nothing_is_uniform():
    texts = Texts(random_texts(3, (5,)), vocabulary_size=VOCABULARY)
    np.testing.assert_allclose(token_probabilities([], texts, order=3), 1 / VOCABULARY)


@pytest.mark.parametrize(("vocabulary", "order"), [(2048, 5), (2**31, 2), (2**21, 3), (2**21 + 1, 2)])
def test_longest_order_is_what_fits_into_63_bits(vocabulary, order):
    assert longest_order(vocabulary) == order
    top = np.full(order, vocabulary - 1)
    texts = Texts([top], vocabulary_size=vocabulary)
    found = token_probabilities([top, top], texts, order=order)
    assert found[-1] > 0.5
