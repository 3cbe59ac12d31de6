import numpy as np
from corpus_examples import random_text
from hypothesis import given
from hypothesis import strategies as st

from tikmix_pipeline.corpus.ngrams import hash_words, ngram_hashes


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
