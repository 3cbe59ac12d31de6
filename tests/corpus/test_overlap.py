import numpy as np
import pytest
from corpus_examples import documents, random_text

from tikmix_pipeline.corpus.documents import Document
from tikmix_pipeline.corpus.overlap import Overlap, remove_overlap
from tikmix_pipeline.corpus.records import OverlapRow
from tikmix_pipeline.parameters.corpus import OverlapParameters

PARAMETERS = OverlapParameters(words=8, max_share=0.5)


def row_of(overlap: Overlap, evaluation: str, domain: str) -> OverlapRow:
    (row,) = [row for row in overlap.report if (row.evaluation, row.domain) == (evaluation, domain)]
    return row


def grams(text: str, length: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def test_a_training_document_that_holds_an_item_is_removed():
    item = random_text(1, 20)
    clean, leak = documents(random_text(2), random_text(3, 30) + item)
    overlap = remove_overlap({"a": [clean, leak], "b": [clean]}, {}, {"quiz": [item]}, PARAMETERS)
    assert overlap.training == {"a": [clean], "b": [clean]}
    row = row_of(overlap, "quiz", "a")
    assert (row.texts, row.hit, row.leaked, row.training_documents_removed, row.share_left) == (1, 1, 1, 1, 0.0)
    assert row_of(overlap, "quiz", "b").hit == 0


def test_an_item_spread_over_two_documents_leaks_in_neither():
    """13 n-grams in all; each document holds 4 of them, less than half."""
    words = random_text(1, 20).split()
    parts = documents(" ".join(words[:11]) + " x", " ".join(words[9:]) + " y")
    overlap = remove_overlap({"a": parts}, {}, {"quiz": [" ".join(words)]}, PARAMETERS)
    assert overlap.training == {"a": parts}
    row = row_of(overlap, "quiz", "a")
    assert (row.hit, row.leaked) == (1, 0)
    assert row.share_left == pytest.approx(8 / 13)


def test_a_held_out_document_that_leaks_is_dropped_and_its_training_document_stays():
    shared = random_text(1, 40)
    training = documents(shared + random_text(2, 40))
    leaked, clean = documents(shared, random_text(3))
    overlap = remove_overlap({"a": training}, {"a": [leaked, clean]}, {}, PARAMETERS)
    assert overlap.training == {"a": training}
    assert overlap.heldout == {"a": [clean]}
    row = row_of(overlap, "heldout/a", "a")
    assert (row.texts, row.leaked, row.heldout_documents_dropped, row.share_left) == (2, 1, 1, 0.0)


def test_a_held_out_document_stays_when_its_leak_was_removed_for_an_item():
    shared = random_text(1, 20)
    training = documents(shared + " end", random_text(2))
    heldout = documents(shared + " other end")
    overlap = remove_overlap({"a": training}, {"a": heldout}, {"quiz": [shared]}, PARAMETERS)
    assert overlap.training == {"a": training[1:]}
    assert overlap.heldout == {"a": heldout}


def test_items_too_short_for_an_ngram_are_counted_and_not_looked_up():
    training = documents("yes no yes no yes no yes no yes")
    overlap = remove_overlap({"a": training}, {}, {"quiz": ["yes no", "no yes no"]}, PARAMETERS)
    row = row_of(overlap, "quiz", "a")
    assert (row.texts, row.too_short, row.hit) == (2, 2, 0)
    assert overlap.training == {"a": training}


def test_case_and_punctuation_do_not_hide_a_leak():
    item = random_text(1, 20)
    hidden = documents(", ".join(item.upper().split()))
    assert remove_overlap({"a": hidden}, {}, {"quiz": [item]}, PARAMETERS).training == {"a": []}


def test_the_report_agrees_with_counting_ngrams_one_by_one():
    """The oracle compares sets of word tuples pair by pair; short n-grams over few words make overlaps common."""
    rng = np.random.default_rng(0)
    words = ["a", "b", "c", "d"]

    def texts(count: int) -> list[str]:
        return [" ".join(rng.choice(words, size=rng.integers(1, 14))) for _ in range(count)]

    length = 3
    parameters = OverlapParameters(words=length, max_share=0.6)
    training = {name: documents(*dict.fromkeys(texts(40))) for name in ("x", "y")}
    items = texts(25)
    overlap = remove_overlap(training, {}, {"quiz": items}, parameters)
    for name, before in training.items():
        shares = np.array([[_share(item, document, length) for document in before] for item in items])
        row = row_of(overlap, "quiz", name)
        assert row.too_short == sum(not grams(item, length) for item in items)
        assert row.hit == int((shares > 0).any(axis=1).sum())
        assert row.leaked == int((shares >= 0.6).any(axis=1).sum())
        kept = [document for document, leaks in zip(before, (shares >= 0.6).any(axis=0), strict=True) if not leaks]
        assert overlap.training[name] == kept
        assert row.training_documents_removed == len(before) - len(kept)
        wanted = set().union(*(grams(item, length) for item in items))
        left = set().union(*(grams(document.text, length) for document in kept))
        assert row.share_left == pytest.approx(len(wanted & left) / len(wanted))


def _share(item: str, document: Document, length: int) -> float:
    wanted = grams(item, length)
    return len(wanted & grams(document.text, length)) / len(wanted) if wanted else 0.0
