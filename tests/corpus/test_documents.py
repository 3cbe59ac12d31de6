import itertools
from unittest import mock

import numpy as np
import pytest
from corpus_examples import documents, random_text
from hypothesis import given
from hypothesis import strategies as st

from tikmix_pipeline.corpus.documents import (
    Document,
    hash_words,
    ngram_hashes,
    sample_by_hash,
    sample_first,
    split_documents,
    trim,
)
from tikmix_pipeline.errors import TikmixError

TEXTS = [random_text(seed, 20) for seed in range(50)]


def texts_of(sampled: list[Document]) -> list[str]:
    return [document.text for document in sampled]


def test_a_sample_by_hash_does_not_depend_on_the_order_of_the_documents():
    shuffled = TEXTS[25:] + TEXTS[:25][::-1]
    limit = 1000
    first, second = sample_by_hash(TEXTS, limit, 3), sample_by_hash(shuffled, limit, 3)
    assert texts_of(first.documents) == texts_of(second.documents)
    assert 0 < sum(document.size for document in first.documents) <= limit


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=5), st.integers(1, 20))
def test_a_sample_by_hash_is_the_prefix_by_key_that_fits_in_any_order(pairs: list[tuple[int, int]], limit: int):
    """The oracle sorts and trims; keys are given, so that all orders of few documents are tried."""
    sizes = dict(pairs)
    keys = [key for key, _ in pairs]
    known = {str(key): Document(str(key), size, key, 0) for key, size in sizes.items()}
    expected = trim([known[str(key)] for key in sorted(sizes)], limit)
    copies = sum(keys.count(document.sample_key) - 1 for document in expected)
    with mock.patch.object(Document, "of", lambda text, _: known[text]):
        for order in itertools.permutations(keys):
            sample = sample_by_hash(map(str, order), limit, 0)
            assert sample.documents == expected
            assert (sample.documents_read, sample.exact_duplicates) == (len(keys), copies)
            assert sample.is_cut == (len(expected) < len(sizes))


def test_a_larger_sample_contains_the_smaller_one():
    small, large = sample_by_hash(TEXTS, 1000, 0), sample_by_hash(TEXTS, 2000, 0)
    assert texts_of(large.documents)[: len(small.documents)] == texts_of(small.documents)


def test_another_seed_samples_other_documents():
    assert texts_of(sample_by_hash(TEXTS, 1000, 0).documents) != texts_of(sample_by_hash(TEXTS, 1000, 1).documents)


def test_sampling_keeps_one_document_even_where_none_fits():
    assert len(sample_by_hash(TEXTS, 1, 0).documents) == 1


def test_sampling_counts_what_it_reads_and_drops_exact_duplicates():
    sample = sample_by_hash([*TEXTS, *TEXTS[:5]], float("inf"), 0)
    assert (sample.documents_read, sample.exact_duplicates, len(sample.documents)) == (55, 5, 50)


def test_a_contiguous_sample_is_the_beginning_in_order():
    sample = sample_first(TEXTS, 500, 0)
    assert texts_of(sample.documents) == TEXTS[: len(sample.documents)]
    assert sample.documents_read == len(sample.documents) < len(TEXTS)


def test_trimming_keeps_the_longest_prefix_that_fits():
    chain = documents("aaaa", "bbbb", "cccc")
    assert [len(trim(chain, limit)) for limit in (1, 4, 8, 11, 12, float("inf"))] == [1, 1, 2, 2, 3, 3]


def test_size_counts_utf8_bytes():
    assert Document.of("é€", 0).size == 5


def test_words_are_lower_cased_runs_of_letters_and_digits():
    assert hash_words("The cat_sat, x2!").tolist() == hash_words("the CAT sat X2").tolist()
    assert len(hash_words("The cat_sat, x2!")) == 4


def test_ngrams_are_equal_exactly_where_their_words_are():
    """The oracle counts n-grams as tuples of words."""
    words = random_text(0, 2000).split()
    for length in (1, 2, 3):
        grams = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
        hashes = ngram_hashes(hash_words(" ".join(words)), length)
        assert len(hashes) == len(grams)
        assert len(np.unique(hashes)) == len(set(grams))


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=12), st.integers(1, 9))
def test_there_is_one_ngram_per_start(words: list[str], length: int):
    assert len(ngram_hashes(hash_words(" ".join(words)), length)) == max(0, len(words) - length + 1)


def test_order_of_words_matters():
    assert ngram_hashes(hash_words("a b"), 2) != ngram_hashes(hash_words("b a"), 2)


def test_hashes_do_not_change_between_processes():
    """Python's own string hash does; the samples of a corpus must not."""
    assert ngram_hashes(hash_words("to be or not to be"), 3)[0] == np.uint64(2068313408099234685)


DOCUMENTS = documents(*(random_text(seed, 40) for seed in range(100)))


def size(side: list[Document]) -> int:
    return sum(document.size for document in side)


def test_every_document_is_on_exactly_one_side():
    train, heldout = split_documents(DOCUMENTS, fraction=0.1, max_bytes=1e9)
    assert sorted([*train, *heldout], key=DOCUMENTS.index) == DOCUMENTS
    assert not {document.text for document in train} & {document.text for document in heldout}


def test_the_held_out_share_is_the_fraction_of_the_text():
    _, heldout = split_documents(DOCUMENTS, fraction=0.2, max_bytes=1e9)
    assert 0.17 * size(DOCUMENTS) < size(heldout) <= 0.2 * size(DOCUMENTS)


def test_the_held_out_text_is_bounded():
    _, heldout = split_documents(DOCUMENTS, fraction=0.4, max_bytes=1000)
    assert 0 < size(heldout) <= 1000


def test_the_side_of_a_document_does_not_depend_on_the_order():
    shuffled = DOCUMENTS[50:] + DOCUMENTS[:50][::-1]
    sides = [
        {document.text for document in split_documents(order, fraction=0.1, max_bytes=1e9)[1]}
        for order in (DOCUMENTS, shuffled)
    ]
    assert sides[0] == sides[1]


def test_documents_too_long_to_hold_out_are_passed_over():
    long = documents(*(random_text(seed, 4000) for seed in range(3)))
    _, heldout = split_documents([*DOCUMENTS, *long], fraction=0.05, max_bytes=1e9)
    assert heldout
    assert not set(long) & set(heldout)


def test_a_contiguous_split_holds_out_one_block():
    _, heldout = split_documents(DOCUMENTS, fraction=0.1, max_bytes=1e9, contiguous=True)
    start = DOCUMENTS.index(heldout[0])
    assert len(heldout) == 10
    assert heldout == DOCUMENTS[start : start + 10]


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_a_domain_too_small_for_its_held_out_split_is_refused(count: int, contiguous: bool):
    with pytest.raises(TikmixError, match=r"too small for its held-out split: .*raise corpus.heldout_fraction"):
        split_documents(DOCUMENTS[:count], fraction=0.1, max_bytes=1e9, contiguous=contiguous)
