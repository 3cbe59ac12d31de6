import numpy as np
import pytest
from corpus_examples import documents, random_text

from tikmix_pipeline.corpus.documents import Document, words_of
from tikmix_pipeline.corpus.overlap import Overlap, remove_overlap
from tikmix_pipeline.corpus.records import OverlapRow
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import OverlapParameters

PARAMETERS = OverlapParameters(words=8, max_share=0.5, max_removed=1)


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
    parameters = OverlapParameters(words=length, max_share=0.6, max_removed=1)
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


# letters of scripts that set no blanks between words; a sentence is a run of them
HAN = "".join(map(chr, range(0x4E00, 0x4E00 + 800)))
SCRIPTS = {
    "Chinese": HAN,
    "Japanese": HAN[:300] + "".join(map(chr, [*range(0x3042, 0x3090), *range(0x30A2, 0x30F0)])),
    "Thai": "".join(map(chr, range(0x0E01, 0x0E2F))),
    "Khmer": "".join(map(chr, range(0x1780, 0x17B3))),
}


def sentences(letters: str, seed: int, count: int) -> str:
    """Return text as such scripts have it: runs of 20 to 40 letters between full stops."""
    rng = np.random.default_rng(seed)
    return "".join("".join(rng.choice(list(letters), size=rng.integers(20, 40))) + "\u3002" for _ in range(count))


@pytest.mark.parametrize("script", SCRIPTS)
def test_items_are_found_in_text_without_blanks_between_words(script: str):
    """20 of 30 items stand verbatim in training text, in the middle of sentences."""
    letters = SCRIPTS[script]
    items = [sentences(letters, row, 2) for row in range(30)]
    clean = documents(*(sentences(letters, 1000 + row, 10) for row in range(30)))
    leaks = documents(*(sentences(letters, 2000 + row, 4)[:-5] + items[row] + HAN[:40] for row in range(20)))
    overlap = remove_overlap({"a": [*clean, *leaks]}, {}, {"quiz": items}, PARAMETERS)
    assert overlap.training == {"a": clean}
    row = row_of(overlap, "quiz", "a")
    assert (row.texts, row.too_short, row.leaked, row.training_documents_removed) == (30, 0, 20, 20)


def test_words_and_characters_stand_side_by_side():
    mixed = "GPT-4\u7684\u4ef7\u683c is 20\u5143!"
    assert words_of(mixed) == ["gpt", "4", "\u7684", "\u4ef7", "\u683c", "is", "20", "\u5143"]
    with_blanks = ["\uc5b4\ub514", "caf\u00e9", "\u0434\u043e\u043c"]
    assert words_of(" ".join(with_blanks)) == with_blanks


def test_a_task_whose_boilerplate_would_remove_a_domain_stops_the_run():
    boilerplate = "Answer the question below with one of the letters A B C or D and nothing else"
    items = [f"{boilerplate}. Is it {word}?" for word in ("red", "blue", "green")]
    hit = documents(*(f"{random_text(row)} {boilerplate}. {random_text(row + 100)}" for row in range(108)))
    clean = documents(*(random_text(row + 1000) for row in range(12)))
    parameters = OverlapParameters()
    with pytest.raises(TikmixError) as raised:
        remove_overlap(
            {"other": clean, "web": [*hit, *clean]}, {}, {"exam": [random_text(5000)], "quiz": items}, parameters
        )
    message = str(raised.value)
    assert message.startswith(
        "corpus.tasks.quiz: its items would remove 108 of the 120 training documents of corpus.domains.web (all tasks "
        "together 108), more than corpus.overlap.max_removed = 0.2 of them. 108 of these hold '"
    )
    example = message.split("'")[1]
    assert example in boilerplate.lower()
    assert len(example.split()) == parameters.words


@pytest.mark.parametrize("hits", [20, 21])
def test_as_much_as_the_share_may_be_removed(hits: int):
    item = random_text(1, 20)
    leaks = documents(*(f"{random_text(row + 10)} {item}" for row in range(hits)))
    clean = documents(*(random_text(row + 1000) for row in range(100 - hits)))
    try:
        overlap = remove_overlap({"a": [*leaks, *clean]}, {}, {"quiz": [item]}, OverlapParameters())
    except TikmixError:
        assert hits == 21
    else:
        assert hits == 20
        assert overlap.training == {"a": clean}
