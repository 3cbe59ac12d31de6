"""Two tasks of one file, or that share items, are named: their items count twice."""

import logging
from pathlib import Path

import pytest
from corpus_examples import corpus_in, random_text

from tikmix_pipeline.corpus.build import prepare_text
from tikmix_pipeline.corpus.task_copies import tell_copies
from tikmix_pipeline.corpus.tasks import Item, split_items

ITEMS = [Item(f"{random_text(seed, 8).strip()}?", random_text(seed + 100, 2).strip()) for seed in range(40)]


def halves(items):
    return split_items(items, max_items=None, seed=0)


def test_two_tasks_of_one_file_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tasks = corpus_in(tmp_path).model_dump()["tasks"]
    twice = corpus_in(tmp_path, tasks=tasks | {"same": tasks["quiz"]})
    with caplog.at_level(logging.WARNING, logger="tikmix_pipeline"):
        prepare_text(twice, root=tmp_path, downloads=tmp_path)
    (said,) = [record.getMessage() for record in caplog.records if "count twice" in record.getMessage()]
    items = len({item.text for half in halves_of(twice, tmp_path).values() for item in half})
    assert said == (
        f"corpus.tasks: {items} of the {items} items of 'quiz' stand in 'same' too. They count twice. Leave one of the "
        "two tasks out, or these items of one of them"
    )


def halves_of(parameters, root):
    return prepare_text(parameters, root=root, downloads=root).items["quiz"]


@pytest.mark.parametrize(("shared", "is_told"), [(4, True), (3, False)])
def test_tasks_that_share_a_fifth_of_the_smaller_are_told(shared, is_told, caplog):
    larger, smaller = ITEMS[: 20 + shared], ITEMS[20:]
    tell_copies({"larger": halves(larger), "smaller": halves(smaller)})
    assert (f"{shared} of the {20 + shared} items of 'larger' stand in 'smaller' too" in caplog.text) == is_told


def test_items_that_guide_in_one_task_and_judge_in_the_other_are_counted(caplog):
    one = {"query": ITEMS[:10], "evaluation": ITEMS[10:20]}
    other = {"query": ITEMS[10:15], "evaluation": [*ITEMS[:3], *ITEMS[30:]]}
    tell_copies({"one": one, "other": other})
    assert "8 of the 20 items of 'one' stand in 'other' too. They count twice, and 8 of them guide" in caplog.text


def test_copies_are_told_however_they_are_written(caplog):
    shouted = [Item(item.question.upper(), f" {item.answer}") for item in ITEMS]
    tell_copies({"one": halves(ITEMS), "two": halves(shouted)})
    assert "40 of the 40 items" in caplog.text


def test_one_question_with_other_answers_is_no_copy(caplog):
    tell_copies({name: halves([Item(f"Which? {name}"[:6], f"{name} {n}", f"p{n}") for n in range(9)]) for name in "ab"})
    assert not caplog.records
