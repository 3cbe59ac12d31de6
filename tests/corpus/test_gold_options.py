"""Answers that contradict themselves, or each other, are refused; all others are read alike."""

from typing import Any

import pytest

from tikmix_pipeline.corpus.gold_options import gold_options
from tikmix_pipeline.corpus.options import Options, options_of
from tikmix_pipeline.errors import TikmixError

METALS = ["iron", "wood", "tin"]


def options(number: int = 1, **record: Any) -> Options:
    found = options_of({"choices": METALS} | record, f"line {number}")
    assert found is not None
    return found


def test_a_letter_with_the_text_of_another_option_is_refused():
    with pytest.raises(TikmixError, match=r"line 2: the answer 'B. iron' has the label of 'wood' and the text of .* A"):
        gold_options([options(answer="A. iron"), options(2, answer="B. iron")])


@pytest.mark.parametrize("answer", ["B", "B. wood", "B. wood, cut short", "(B) wood", "B."])
def test_a_letter_with_its_own_text_or_one_that_is_no_option_is_followed(answer: str):
    assert gold_options([options(answer=answer)]) == [1]


def test_letters_of_a_list_are_followed_where_they_are_not_in_order():
    given = ["C. tin", "A. iron", "B. wood"]
    assert gold_options([options(choices=given, answer=letter) for letter in "ABC"]) == [1, 2, 0]
    assert gold_options([options(choices=given, answer=number) for number in (0, 1, 2)]) == [0, 1, 2]
    assert gold_options([options(choices=given, answer="B. wood")]) == [2]


@pytest.mark.parametrize(
    "further",
    [
        {"answer_idx": "B"},
        {"answer_index": 1},
        {"answer_index": 2.0},
        {"answer_key": "wood"},
        {"gold": None},
        {"label": 0},
        {"answer_idx": "easy"},
        {"answer_idx": [1]},
    ],
)
def test_a_further_answer_may_be_written_otherwise_or_be_none(further: dict[str, Any]):
    assert gold_options([options(answer="wood", **further)]) == [1]


@pytest.mark.parametrize("field", ["answerKey", "answer_key", "answer_index", "answer_idx", "gold"])
def test_two_answers_that_differ_are_refused_with_both(field: str):
    items = [options(answer="A", **{field: "A"}), options(2, answer="B", **{field: "C"})]
    message = rf"line 2: the answer is 'B', and the field '{field}', 'C', names another option, 'tin'"
    with pytest.raises(TikmixError, match=message):
        gold_options(items)


def test_further_answers_count_from_one_number_for_all_records():
    items = [options(number, answer=METALS[number], answer_idx=number + 1) for number in range(3)]
    assert gold_options(items) == [0, 1, 2]
    items[1] = options(1, answer="wood", answer_idx=1)
    with pytest.raises(TikmixError, match=r"line 1: the answer is 'wood', and the field 'answer_idx', '1', names"):
        gold_options(items)
