from collections import Counter

import numpy as np
import pytest
from baseline_examples import heldout_texts

from tikmix_pipeline.baselines.ngram import Texts, longest_order, ngram, token_probabilities
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import choice_batches
from tikmix_pipeline.corpus.tasks import TaskItems, item_batches
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.parameters.baselines import NgramParameters

VOCABULARY = 7
"""Of the texts that n-gram models are held against their definition on."""


def test_of_multiple_choice_the_right_options_are_explained(choice_shards):
    items = TaskItems.open(choice_shards.tasks_file).choices("recall", "query")
    found, expected = (
        ngram(choice_shards, {"query/recall": batches}, parameters=NgramParameters())
        for batches in (
            choice_batches(items, context=64, batch_size=5, pad_id=0),
            item_batches(items, context=64, batch_size=5, loss="answer", pad_id=0),
        )
    )
    assert found.weights == pytest.approx(expected.weights, abs=1e-9)
    assert found.details["bits_per_token"] == pytest.approx(expected.details["bits_per_token"])


def test_text_of_a_domain_is_explained_by_that_domain(token_shards):
    found = ngram(token_shards, heldout_texts(token_shards, "verse"), parameters=NgramParameters())
    assert found.weights["verse"] > 0.9
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.details["bits_per_token"] <= min(found.details["bits_per_token_alone"].values()) + 1e-4
    assert found.details["bits_per_token"] < found.details["bits_per_token_uniform"]
    assert found.notes == ()


def test_targets_weigh_the_same_whatever_their_length(token_shards):
    texts = heldout_texts(token_shards, "code", "verse")
    (batch,) = texts["query/code"]
    short = {"query/code": [TokenBatch(batch.tokens_BS[:2], batch.loss_BS[:2])], "query/verse": texts["query/verse"]}
    found = ngram(token_shards, short, parameters=NgramParameters())
    assert found.weights["code"] == pytest.approx(0.5, abs=0.05)
    assert found.weights["verse"] == pytest.approx(0.5, abs=0.05)


def test_padding_and_tokens_without_loss_are_history_only(token_shards):
    texts = heldout_texts(token_shards, "verse")
    (batch,) = texts["query/verse"]
    padded = np.pad(batch.tokens_BS, ((0, 0), (0, 3)))
    answers_BS = np.pad(batch.loss_BS, ((0, 0), (0, 3)))
    same = ngram(token_shards, {"verse": [TokenBatch(padded, answers_BS)]}, parameters=NgramParameters())
    assert same == ngram(token_shards, texts, parameters=NgramParameters())
    answers_BS[:, :10] = False
    half = ngram(token_shards, {"verse": [TokenBatch(padded, answers_BS)]}, parameters=NgramParameters())
    assert half.details["bits_per_token"] != same.details["bits_per_token"]


def test_no_model_is_passed_through_and_the_tokens_read_are_told(token_shards):
    texts = heldout_texts(token_shards, "verse")
    scored = sum(batch.tokens_BS.size for batch in texts["query/verse"])
    whole = ngram(token_shards, texts, parameters=NgramParameters())
    known = sum(token_shards.tokens(domain) for domain in token_shards.domains)
    assert (whole.cost.tokens, whole.cost.flops) == (0, 0)
    assert whole.details["tokens_read"] == scored + known
    part = ngram(token_shards, texts, parameters=NgramParameters(max_tokens=500))
    assert scored + 3 * 450 <= part.details["tokens_read"] <= scored + 3 * 520


def test_bounds_hold(token_shards):
    limits = OptimizeParameters(max_weight=0.6)
    bounds = mixture_bounds(limits, dict.fromkeys(token_shards.domains, Supply(10_000)), 100)
    found = ngram(token_shards, heldout_texts(token_shards, "verse"), parameters=NgramParameters(), bounds=bounds)
    assert found.weights["verse"] == pytest.approx(0.6)
    assert "'verse' most" in found.notes[0]


def test_order_beyond_the_numbers_is_refused(token_shards):
    with pytest.raises(TikmixError, match=r"baselines\.ngram\.order is 9.*up to order 7"):
        ngram(token_shards, heldout_texts(token_shards, "verse"), parameters=NgramParameters(order=9))


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
