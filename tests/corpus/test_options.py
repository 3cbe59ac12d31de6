"""What people write for options and answers, as in `lm-eval`'s data sets, is one and the same item."""

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from corpus_examples import random_text

from tikmix_pipeline.corpus.task_records import read_items
from tikmix_pipeline.corpus.tasks import Item, describe_item
from tikmix_pipeline.errors import TikmixError

LETTERS = "ABCD"


def words(seed: int, count: int) -> str:
    return random_text(seed, count).strip()


QUESTIONS = [f"{words(seed, 7)}?" for seed in range(12)]
OPTIONS = [[words(100 * seed + number + 50, 3) for number in range(4)] for seed in range(12)]
GOLD = [(3 * seed) % 4 for seed in range(12)]
EXPECTED = [
    Item(question, options[gold], options=tuple(options), gold=gold)
    for question, options, gold in zip(QUESTIONS, OPTIONS, GOLD, strict=True)
]


def lines(options: list[str], form: str, between: str = "\n") -> str:
    return between.join(f"{form.format(letter)}{option}" for letter, option in zip(LETTERS, options, strict=True))


SHAPES: dict[str, Callable[[list[str], int], dict[str, Any]]] = {
    "proper": lambda options, gold: {"options": lines(options, "{}. "), "answer": LETTERS[gold]},
    "proper, answer in full": lambda options, gold: {
        "options": lines(options, "{}. "),
        "answer": f"{LETTERS[gold]}. {options[gold]}",
    },
    "columns": lambda options, gold: {**dict(zip(LETTERS, options, strict=True)), "answer": LETTERS[gold], "id": 3},
    "columns of winogrande": lambda options, gold: {
        **{f"option{number}": option for number, option in enumerate(options, start=1)},
        "answer": str(gold + 1),
    },
    "columns from zero": lambda options, gold: {
        **{f"choice_{number}": option for number, option in enumerate(options)},
        "answer": gold,
    },
    "columns of small letters": lambda options, gold: {
        **{f"option_{letter.lower()}": option for letter, option in zip(LETTERS, options, strict=True)},
        "answer": LETTERS[gold],
    },
    "choices": lambda options, gold: {"choices": options, "answer": LETTERS[gold]},
    "choices, in brackets": lambda options, gold: {"choices": options, "answer": f"({LETTERS[gold]})"},
    "choices, small letter": lambda options, gold: {"choices": options, "answer": LETTERS[gold].lower()},
    "choices by index": lambda options, gold: {"choices": options, "answer": gold},
    "choices by index as text": lambda options, gold: {"choices": options, "answer": str(gold)},
    "choices by index of a table with holes": lambda options, gold: {"choices": options, "answer": float(gold)},
    "choices by index from one": lambda options, gold: {"choices": options, "answer": gold + 1},
    "choices by text": lambda options, gold: {"choices": options, "answer": f" {options[gold]} "},
    "choices and label": lambda options, gold: {"choices": options, "label": gold},
    "arc": lambda options, gold: {
        "choices": {"text": options, "label": list(LETTERS)},
        "answerKey": LETTERS[gold],
    },
    "arc in numbers": lambda options, gold: {
        "choices": {"text": options, "label": ["1", "2", "3", "4"]},
        "answerKey": str(gold + 1),
    },
    "arc as published": lambda options, gold: {
        "choices": [{"text": text, "label": label} for text, label in zip(options, LETTERS, strict=True)],
        "answerKey": LETTERS[gold],
    },
    "options list": lambda options, gold: {"options": options, "answer": LETTERS[gold], "answer_index": gold},
    "options object": lambda options, gold: {
        "options": dict(zip(LETTERS, options, strict=True)),
        "answer": LETTERS[gold],
    },
    "brackets": lambda options, gold: {"options": lines(options, "({}) "), "answer": LETTERS[gold]},
    "brackets in one line": lambda options, gold: {"options": lines(options, "({}) ", " "), "answer": LETTERS[gold]},
    "half brackets": lambda options, gold: {"options": lines(options, "{}) "), "answer": f"{LETTERS[gold]})"},
    "colons": lambda options, gold: {"options": lines(options, "{}: "), "answer": LETTERS[gold]},
    "in one line": lambda options, gold: {"options": lines(options, "{}. ", " "), "answer": LETTERS[gold]},
    "list with letters": lambda options, gold: {
        "options": lines(options, "{}. ").split("\n"),
        "answer": f"{LETTERS[gold]}. {options[gold]}",
    },
    "list with letters close by": lambda options, gold: {
        "options": lines(options, "{})").split("\n"),
        "answer": LETTERS[gold],
    },
    "arc with letters": lambda options, gold: {
        "choices": {"text": lines(options, "({}) ").split("\n"), "label": list(LETTERS)},
        "answerKey": LETTERS[gold],
    },
    "medqa": lambda options, gold: {
        "options": dict(zip(LETTERS, options, strict=True)),
        "answer": options[gold],
        "answer_idx": LETTERS[gold],
    },
}


def read(*records: dict[str, Any]) -> list[Item]:
    return read_items((f"line {number}", record) for number, record in enumerate(records, start=1))


def shaped(shape: str) -> list[dict[str, Any]]:
    cases = zip(QUESTIONS, OPTIONS, GOLD, strict=True)
    return [{"question": question, **SHAPES[shape](options, gold)} for question, options, gold in cases]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_the_same_items(shape: str):
    assert read(*shaped(shape)) == EXPECTED


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_the_same_items_in_any_order_and_from_a_table(shape: str):
    records = shaped(shape)
    assert read(*records[::-1]) == EXPECTED[::-1]
    assert read(*pa.Table.from_pylist(records).to_pylist()) == EXPECTED


def test_records_of_one_file_may_have_labels_of_their_own():
    both = [*shaped("arc")[:6], *shaped("arc in numbers")[6:]]
    assert read(*both) == EXPECTED


def test_questions_with_fewer_options_leave_the_last_columns_empty():
    records = shaped("columns")
    three = {**records[0], "answer": "B", "D": None}
    found = read(three, *records[1:])
    assert found[0].options == tuple(OPTIONS[0][:3])
    assert found[1:] == EXPECTED[1:]
    assert read({**three, "D": " "}, *records[1:]) == found


def test_options_that_are_numbers_are_texts():
    (item,) = read({"question": "2 + 2?", "choices": [3, 4, 5.5], "answer": "B"})
    assert (item.options, item.answer, item.gold) == (("3", "4", "5.5"), "4", 1)


def test_integers_that_a_table_made_floats_of_are_integers_again():
    (column,) = read({"question": "2 + 2?", "A": 4.0, "B": 15.0, "C": float("nan"), "answer": "A"})
    assert column.options == ("4", "15")
    (listed,) = read({"question": "2 + 2?", "choices": [4.0, 4.5], "answer": "A"})
    assert listed.options == ("4.0", "4.5")


def test_columns_that_hold_no_texts_are_no_options():
    records = [{"question": question, "A": [1], "B": [2], "answer": words(7, 3)} for question in QUESTIONS]
    assert read(*records) == [Item(question, words(7, 3)) for question in QUESTIONS]


@pytest.mark.parametrize("numbers", [[1, 2, 3], [1, 1, 2], ["2", "3", "1"]])
def test_numbers_that_may_count_from_zero_or_from_one_are_refused_with_both(numbers: list[int | str]):
    records = [
        {"question": question, "choices": options, "answer": number}
        for question, options, number in zip(QUESTIONS, OPTIONS, numbers, strict=False)
    ]
    message = (
        rf"line 1: the answer '{numbers[0]}' may be a number from 0 \('{OPTIONS[0][int(numbers[0])]}'\) or a number "
    )
    with pytest.raises(TikmixError, match=rf"{message}from 1 \('{OPTIONS[0][int(numbers[0]) - 1]}'\).* Write letters"):
        read(*records)


def test_answers_that_are_letters_of_labels_and_texts_of_other_options_are_refused():
    records = [{"question": f"{number}?", "choices": ["B", "A"], "answer": "A"} for number in range(3)]
    with pytest.raises(TikmixError, match=r"the answer 'A' may be a label \('B'\) or an option's text \('A'\)"):
        read(*records)


def test_an_answer_that_fits_no_other_is_refused_by_its_place_and_the_way_of_the_rest():
    records = shaped("choices by index")
    records[4]["answer"] = 7
    with pytest.raises(TikmixError, match=r"line 5: the answer '7' names none .* number from 0, as 11 of 12 answers"):
        read(*records)
    mixed = [*shaped("choices")[:7], *shaped("choices by text")[7:]]
    with pytest.raises(
        TikmixError, match=rf"line 8: the answer '{EXPECTED[7].answer}' names none of the options A, B, C, D"
    ):
        read(*mixed)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"choices": 5, "answer": "A"}, "the field 'choices' holds no options"),
        ({"choices": [["a"], ["b"]], "answer": "A"}, "the field 'choices' holds no options"),
        ({"choices": ["a", None], "answer": "A"}, r"option 2 of the field 'choices' is missing \(null or NaN\)"),
        ({"choices": [float("nan"), "b"], "answer": "B"}, "option 1 of the field 'choices' is missing"),
        ({"choices": [{"text": "a"}, {"txt": "b"}], "answer": "A"}, "option 2 of the field 'choices' is missing"),
        ({"choices": ["a", True], "answer": "A"}, "the field 'choices' holds no options"),
        ({"choices": ["a", "\ud83d"], "answer": "A"}, r"the field 'choices\[1\]' holds half a surrogate pair"),
        ({"choices": "A. a\nB. \ud83d", "answer": "A"}, "the field 'choices' holds half a surrogate pair"),
        ({"A": "a", "B": "\ud83d", "answer": "A"}, "the field 'B' holds half a surrogate pair"),
        ({"choices": ["a", "b"], "answer": "\ud83d"}, "the field 'answer' holds half a surrogate pair"),
        ({"choices": "A. of A. B. of B. C. no", "answer": "A"}, "the options in the field 'choices' stand in one line"),
        ({"A": "a", "B": None, "C": "c", "answer": "C"}, "the option in the column 'B' is empty, and the one in 'C'"),
        ({"A": float("nan"), "B": "b", "answer": "B"}, "the option in the column 'A' is empty, and the one in 'B'"),
        ({"option1": "a", "option2": True, "answer": 1}, "the column 'option2' holds bool, expected an option"),
        ({"choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"}, "no label of its own for each"),
        ({"choices": {"text": ["a", "b"], "label": ["A", "A"]}, "answerKey": "A"}, "no label of its own for each"),
        ({"choices": {"text": ["a", "b"], "label": ["A", ["B"]]}, "answerKey": "A"}, "no label of its own for each"),
        ({"choices": ["a", "b"]}, "there is no field 'answer'"),
        ({"choices": ["a", "b"], "answer": True}, "the field 'answer' holds bool, expected text"),
        ({"choices": ["a", "b"], "answer": ["A"]}, "the field 'answer' holds list, expected text"),
        ({"choices": ["a", ""], "answer": "B"}, "the option that is the answer is empty"),
        ({"choices": ["a", "b"], "answer": -1}, "the answer '-1' names none of the options A, B"),
        ({"choices": ["a", "b"], "answer": 10**30}, "names none of the options A, B"),
        ({"choices": ["a", "b"], "answer": float("nan")}, "the answer 'nan' names none of the options A, B"),
    ],
)
def test_options_that_are_none_are_refused_by_their_field(record: dict[str, Any], message: str):
    with pytest.raises(TikmixError, match=rf"line 1: .*{message}"):
        read({"question": "What?", **record})


def test_letters_without_options_are_not_measured():
    records = [
        {"question": question, "first": options[0], "second": options[1], "answer": LETTERS[gold % 2]}
        for question, options, gold in zip(QUESTIONS, OPTIONS, GOLD, strict=True)
    ]
    message = (
        r"all 12 answers are letters, such as 'A', and no options are found in the fields 'question', 'first', 'second'"
    )
    with pytest.raises(TikmixError, match=message):
        read(*records)
    with pytest.raises(TikmixError, match=r"all 12 answers are letters"):
        read(*({**record, "answer": f"({record['answer']})"} for record in records))


def test_letters_are_answers_where_the_question_spells_the_options_out():
    records = [
        {"question": f"{question}\n{lines(options, '{}. ')}", "answer": LETTERS[gold]}
        for question, options, gold in zip(QUESTIONS, OPTIONS, GOLD, strict=True)
    ]
    assert [item.answer for item in read(*records)] == [LETTERS[gold] for gold in GOLD]


def test_one_line_says_how_an_item_was_understood():
    told = describe_item(EXPECTED[1])
    assert told == (
        f"'{QUESTIONS[1]}' is answered by '{OPTIONS[1][GOLD[1]]}', option {GOLD[1] + 1} of 4: "
        + " | ".join(f"'{option}'" for option in OPTIONS[1])
    )
    assert describe_item(Item("How\n many?", "9 " * 200)).startswith("'How many?' is answered by '9 9 9")
    assert len(describe_item(Item("How many?", "9 " * 200))) < 250
    assert describe_item(Item("Wet?", "yes", "It rained.")).startswith(
        "about the passage 'It rained.', 'Wet?' is answered"
    )
    assert describe_item(Item("", "Once.")) == "plain text 'Once.'"


def test_null_fields_are_as_if_they_were_not_there():
    rows = [{"question": question, "answer": words(7, 3), "passage": None, "options": None} for question in QUESTIONS]
    assert read(*rows) == [Item(question, words(7, 3)) for question in QUESTIONS]


def any_value(generator: random.Random, depth: int = 2) -> Any:
    plain = ["A", "b)", "1", "", " ", "A. x\nB. y", "(A) x (B) y", 0, 1, -1, 2.5, float("nan"), True, None, "x" * 50]
    if depth == 0 or generator.random() < 0.6:
        return generator.choice(plain)
    inner = [any_value(generator, depth - 1) for _ in range(generator.randrange(4))]
    if generator.random() < 0.5:
        return inner
    return dict(zip(generator.sample(["text", "label", "A", "B", "1"], len(inner)), inner, strict=True))


def test_a_record_of_anything_is_items_or_refused_in_words():
    generator = random.Random(0)  # noqa: S311
    refused: list[str] = []
    names = [
        "question",
        "answer",
        "answerKey",
        "label",
        "options",
        "choices",
        "A",
        "B",
        "C",
        "option1",
        "option_2",
        "passage",
    ]
    for _ in range(4000):
        chosen = generator.sample(names, generator.randrange(1, 7))
        record = {"question": "What?", **{name: any_value(generator) for name in chosen}}
        try:
            for item in read(record, record):
                assert item.gold is None or item.options[item.gold] == item.answer
        except TikmixError as error:
            refused.append(str(error))
    assert 0 < len(refused) < 4000
    assert all("line 1" in message or "all 2 answers are letters" in message for message in refused)
