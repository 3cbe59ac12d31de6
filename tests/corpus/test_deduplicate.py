import itertools
import math

import numpy as np
import pytest
from corpus_examples import documents, random_text

from tikmix_pipeline.corpus import deduplicate
from tikmix_pipeline.corpus.deduplicate import band_count, remove_exact_duplicates, remove_near_duplicates
from tikmix_pipeline.corpus.documents import Document
from tikmix_pipeline.parameters.corpus import NearDuplicateParameters

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
    monkeypatch.setattr(deduplicate, "_BATCH_DOCUMENTS", 4)
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
