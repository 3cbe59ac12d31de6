import itertools
from unittest import mock

from corpus_examples import documents, random_text
from hypothesis import given
from hypothesis import strategies as st

from tikmix_pipeline.corpus.documents import Document, sample_by_hash, sample_first, trim

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
