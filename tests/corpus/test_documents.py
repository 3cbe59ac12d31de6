import itertools
import math
from unittest import mock

import numpy as np
import pytest
from corpus_examples import documents, random_text
from hypothesis import given
from hypothesis import strategies as st

from tikmix_pipeline.corpus import documents as documents_module
from tikmix_pipeline.corpus.documents import (
    Document,
    band_count,
    hash_words,
    ngram_hashes,
    remove_exact_duplicates,
    remove_near_duplicates,
    sample_by_hash,
    sample_first,
    split_documents,
    trim,
    words_of,
)
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import NearDuplicateParameters

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
    assert len(sample.documents) < len(TEXTS)
    # the rest is counted, for how much text there is decides how often it is read
    assert sample.documents_read == len(TEXTS)
    assert sample.total_bytes == sum(len(text.encode()) for text in TEXTS)


def test_trimming_keeps_the_longest_prefix_that_fits():
    chain = documents("aaaa", "bbbb", "cccc")
    assert [len(trim(chain, limit)) for limit in (1, 4, 8, 11, 12, float("inf"))] == [1, 1, 2, 2, 3, 3]


def test_size_counts_utf8_bytes():
    assert Document.of("é€", 0).size == 5


def test_words_are_lower_cased_runs_of_letters_and_digits():
    assert hash_words("The cat_sat, x2!").tolist() == hash_words("the CAT sat X2").tolist()
    assert len(hash_words("The cat_sat, x2!")) == 4


@pytest.mark.parametrize(
    "written",
    ["caf\u0065\u0301 final", "caf\u00e9 \ufb01nal", "ca\u00adf\u00e9 fi\u00adnal", "\uff43\uff41\uff46\u00e9 final"],
)
def test_a_word_is_the_same_in_every_unicode_form(written: str):
    assert words_of(written) == ["caf\u00e9", "final"]
    assert hash_words(written).tolist() == hash_words("caf\u00e9 final").tolist()


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


PARAMETERS = NearDuplicateParameters()


def exact_jaccard(first: str, second: str, length: int = 5) -> float:
    """The oracle: sets of word n-grams, spelled out."""
    sets = [
        {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}
        for words in (first.split(), second.split())
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def altered(text: str, share: float, seed: int) -> str:
    """Replace a share of the words."""
    rng = np.random.default_rng(seed)
    words = text.split()
    for position in rng.choice(len(words), size=int(share * len(words)), replace=False):
        words[position] = f"new{seed}x{position}"
    return " ".join(words)


def kept_texts(domains: dict[str, list[Document]]) -> dict[str, list[str]]:
    return {name: [document.text for document in kept] for name, kept in domains.items()}


def test_exact_duplicates_across_domains_stay_in_the_first():
    domains = {"a": documents("one", "two"), "b": documents("two", "three")}
    assert kept_texts(remove_exact_duplicates(domains)) == {"a": ["one", "two"], "b": ["three"]}


def test_near_duplicates_agree_with_exact_similarity():
    """Pairs clearly above the threshold go, pairs clearly below it stay."""
    originals = [random_text(seed, 300) for seed in range(60)]
    copies = [
        altered(text, share, seed)
        for seed, (text, share) in enumerate(zip(originals, itertools.cycle([0.02, 0.05, 0.4]), strict=False))
    ]
    kept = remove_near_duplicates({"a": documents(*originals), "b": documents(*copies)}, PARAMETERS, 0)
    assert len(kept["a"]) == len(originals)
    survivors = {document.text for document in kept["b"]}
    margin = 4 * 0.5 / math.sqrt(PARAMETERS.permutations)
    for original, copy in zip(originals, copies, strict=True):
        similarity = exact_jaccard(original, copy)
        if similarity > PARAMETERS.threshold + margin:
            assert copy not in survivors
        elif similarity < PARAMETERS.threshold - margin:
            assert copy in survivors
    assert 15 <= len(survivors) <= 40


def test_near_duplicates_within_a_domain_keep_the_first():
    text = random_text(0, 200)
    kept = remove_near_duplicates({"a": documents(text, altered(text, 0.01, 1), random_text(1, 200))}, PARAMETERS, 0)
    assert kept_texts(kept) == {"a": [text, random_text(1, 200)]}


def test_resembling_a_removed_document_is_no_reason_to_go():
    first = random_text(0, 400)
    words = first.split()
    second = " ".join(words[80:]) + " " + random_text(1, 80)
    third = " ".join(second.split()[80:]) + " " + random_text(2, 80)
    assert exact_jaccard(first, second) > 0.6
    assert exact_jaccard(second, third) > 0.6
    assert exact_jaccard(first, third) < 0.45
    kept = remove_near_duplicates({"a": documents(first, second, third)}, PARAMETERS, 0)
    assert kept_texts(kept) == {"a": [first, third]}


def test_short_and_wordless_documents_are_compared_whole():
    kept = remove_near_duplicates({"a": documents("one two", "one  two.", "one three", "!!!", "???")}, PARAMETERS, 0)
    assert kept_texts(kept) == {"a": ["one two", "one three", "!!!", "???"]}


def test_removal_is_deterministic():
    texts = [altered(random_text(seed % 20, 100), 0.1, seed) for seed in range(60)]
    runs = [kept_texts(remove_near_duplicates({"a": documents(*texts)}, PARAMETERS, 7)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_batches_do_not_change_what_is_removed(monkeypatch: pytest.MonkeyPatch):
    texts = [altered(random_text(seed % 20, 100), 0.02, seed) for seed in range(60)]
    domains = {"a": documents(*texts[:35]), "b": documents(*texts[35:])}
    whole = kept_texts(remove_near_duplicates(domains, PARAMETERS, 0))
    monkeypatch.setattr(documents_module, "_BATCH_DOCUMENTS", 4)
    assert kept_texts(remove_near_duplicates(domains, PARAMETERS, 0)) == whole
    assert 20 <= sum(map(len, whole.values())) < 60


def test_removal_can_be_switched_off():
    domains = {"a": documents("one two three four five six", "one two three four five six seven")}
    assert remove_near_duplicates(domains, NearDuplicateParameters(enabled=False), 0) == domains


@pytest.mark.parametrize("permutations", [64, 100, 128, 97])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95])
def test_bands_find_a_pair_at_the_threshold(threshold: float, permutations: int):
    bands = band_count(threshold, permutations)
    assert permutations % bands == 0
    assert 1 - (1 - threshold ** (permutations // bands)) ** bands >= 0.99
