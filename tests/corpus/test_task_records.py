"""Which fields of a record are read, which are named as not read, and which records are none of a task."""

import logging
from pathlib import Path
from typing import Any

import pytest
from corpus_examples import corpus_in, random_text, write_jsonl

from tikmix_pipeline.corpus.build import prepare_text
from tikmix_pipeline.corpus.task_records import PASSAGES, parse_item, read_items, read_task
from tikmix_pipeline.corpus.tasks import Item
from tikmix_pipeline.errors import TikmixError


def parse(**record: Any) -> Item:
    return parse_item(record, "tasks, line 1")


@pytest.mark.parametrize(
    ("options", "answer", "gold"),
    [
        ("A. bank\nB. mall", "B. mall", "mall"),
        ("A. bank\nB. mall", "A", "bank"),
        ("\nA. bank\nB. library\nC. mall", "B. library", "library"),
        ("A. first\nline two of it\nB. second ", "A. first\nline two of it", "first\nline two of it"),
        ("C. where does it go?\nD. nowhere", "C. where does it go", "where does it go?"),
        (". stray\nA. one\nB. two", "A. one", "one"),
        ('A. aspirin\nB. rest"', 'B. rest"', "rest"),
        ('A. he said "no"\nB. rest', 'A. he said "no"', 'he said "no"'),
    ],
)
def test_the_gold_option_is_found_by_its_letter(options: str, answer: str, gold: str):
    assert parse(question=" What? ", options=options, answer=answer).answer == gold


def test_an_answer_without_options_is_taken_as_text():
    assert parse(question="How many?", answer=" A. 9 apples ") == Item("How many?", "A. 9 apples")


def test_a_passage_stands_before_the_question():
    item = parse(passage="It rained.", question="Wet?", answer="yes")
    assert item.prompt + item.completion == "It rained.\nQuestion: Wet?\nAnswer: yes"
    assert item.text == "It rained.\nWet? yes"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "What?", "options": "A. a\nB. b", "answer": "C. c"}, "names none of the options A, B"),
        ({"question": "What?", "options": "a, b", "answer": "A. a"}, r"names none of the options \(none found\)"),
        ({"question": "What?", "anser": "a"}, r"no field 'answer'. Did you mean 'anser'\?"),
        ({"question": "What?", "options": "A. a\nB. b", "answer": "Both"}, "names none of the options A, B"),
        ({"body": "a"}, "or is a plain text in 'text' or in the source's `field`; this record's fields are 'body'"),
        ({"text": " \n"}, "the text is empty"),
        ({"question": " ", "answer": "a"}, "needs a question and an answer that are not empty"),
        ({"question": "What?", "answer": ["a"]}, "the field 'answer' holds list, expected text"),
    ],
)
def test_a_record_that_is_no_item_is_refused_by_its_place(record: dict[str, Any], message: str):
    with pytest.raises(TikmixError, match=f"tasks, line 1: .*{message}"):
        parse_item(record, "tasks, line 1")


def test_items_are_read_once_each():
    record = {"question": "What?", "answer": "a"}
    assert read_items([("1", record), ("2", record), ("3", record | {"answer": "b"})]) == [
        Item("What?", "a"),
        Item("What?", "b"),
    ]


def choices_of(*records: dict[str, Any]) -> list[Item]:
    return read_items((f"line {number}", record) for number, record in enumerate(records))


def test_every_option_is_kept_and_the_gold_one_named():
    (choice,) = choices_of(
        {"question": "Where?", "options": 'A. bank\nB. a mall,\nfar away\nC. rest"', "answer": "B. a mall,\nfar away"}
    )
    options = ("bank", "a mall,\nfar away", "rest")
    assert choice == Item("Where?", "a mall,\nfar away", options=options, gold=1)


def test_the_gold_option_goes_by_its_letter_where_two_read_the_same():
    (choice,) = choices_of({"question": "Which?", "options": "A. same\nB. same\nC. other", "answer": "B. same"})
    assert choice.gold == 1


def test_letters_need_not_begin_at_the_first():
    (choice,) = choices_of({"question": "Which?", "options": "C. one\nD. two", "answer": "D"})
    assert (choice.options, choice.gold) == (("one", "two"), 1)


def test_answers_that_all_items_share_are_the_options():
    rows = [{"question": f"Is {row} even?", "answer": ["Yes", "No"][row % 2]} for row in range(6)]
    choices = choices_of(*rows)
    assert all(choice.options == ("No", "Yes") for choice in choices)
    assert [choice.gold for choice in choices] == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    "answers",
    [["a", "b", "c", "d", "e", "f"] * 2, ["yes", "no", "yes", "perhaps"], ["yes", "yes"]],
    ids=["too many", "one given once", "one only"],
)
def test_free_answers_offer_no_choice(answers: list[str]):
    choices = choices_of(*({"question": f"{row}?", "answer": answer} for row, answer in enumerate(answers)))
    assert not any(choice.options or choice.gold is not None for choice in choices)


def test_one_option_an_empty_one_and_one_text_over_again_offer_no_choice():
    choices = choices_of(
        {"question": "Which?", "options": "A. only", "answer": "A"},
        {"question": "And now?", "options": "A. \nB. other", "answer": "B"},
        {"question": "And then?", "options": "A. same\nB. same", "answer": "B"},
    )
    assert [(choice.options, choice.gold) for choice in choices] == [((), None)] * 3


def test_of_items_that_differ_in_their_options_alone_the_first_stays():
    (choice,) = choices_of(
        {"question": "Which?", "options": "A. one\nB. two", "answer": "A"},
        {"question": "Which?", "options": "A. three\nB. one", "answer": "B"},
    )
    assert (choice.options, choice.gold) == (("one", "two"), 0)


def test_an_answer_that_names_no_option_is_refused_with_its_place():
    with pytest.raises(TikmixError, match=r"line 0: the answer 'C' names none of the options A, B"):
        choices_of({"question": "Which?", "options": "A. one\nB. two", "answer": "C"})


@pytest.mark.parametrize("field", PASSAGES)
def test_the_text_that_a_question_is_about_is_read_under_the_names_it_goes_by(field: str):
    item = parse(**{field: "It rained.", "question": "Wet?", "answer": "yes"})
    assert item == Item("Wet?", "yes", "It rained.")


def test_an_empty_passage_gives_way_to_the_next():
    assert parse(passage=" ", context="It rained.", question="Wet?", answer="yes").passage == "It rained."


def test_records_as_race_and_copa_publish_them_keep_what_they_are_about():
    race = {"article": "It rained.", "question": "Wet?", "options": ["no", "yes"], "answer": "B"}
    copa = {"premise": "It rained.", "question": "effect", "choice1": "wet", "choice2": "dry", "label": 0}
    assert [parse(**race), parse(**copa)] == [
        Item("Wet?", "yes", "It rained.", ("no", "yes"), 1),
        Item("effect", "wet", "It rained.", ("wet", "dry"), 0),
    ]


@pytest.mark.parametrize("field", ["text", "sentence"])
@pytest.mark.parametrize("options", [{"choices": ["dry", "wet"]}, {"option1": "dry", "option2": "wet"}])
@pytest.mark.parametrize("answer", [{"label": "wet"}, {"answer": "wet"}])
def test_a_text_with_options_is_the_question(field: str, options: dict[str, Any], answer: dict[str, Any]):
    assert parse(**{field: "It rained."}, **options, **answer) == Item("It rained.", "wet", "", ("dry", "wet"), 1)


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({"text": "Good film.", "label": 0}, "'label'"),
        ({"sentence": "Good film.", "label": 1}, "'label'"),
        ({"text": "Who?", "options": "A. he\nB. she"}, "'options'"),
        ({"text": "Who?", "choices": [], "answerKey": "A"}, "'answerKey'"),
    ],
)
def test_a_text_with_a_label_or_options_alone_is_no_plain_text(record: dict[str, Any], named: str):
    message = f"line 1: the record has a text and {named}, and is neither .* measured, leave {named} out"
    with pytest.raises(TikmixError, match=message):
        parse(**record)


def test_a_question_without_options_among_others_with_is_refused_by_its_place():
    choice = {"question": "Which?", "choices": ["a", "b"], "answer": "B"}
    for empty in ({"choices": []}, {"choices": None}, {"choices": float("nan")}, {"choices": " "}):
        with pytest.raises(TikmixError, match=r"line 1: the record has no options, .* and 2 of the 3 records"):
            choices_of(choice, choice | {"question": "Who?"} | empty, choice | {"question": "Where?"})
    with pytest.raises(TikmixError, match="line 0: the record has no options"):
        choices_of({"question": "Who?", "answer": "B"}, choice)


def test_fields_that_are_not_read_are_named_once_in_the_order_they_are_met():
    rows = [
        {"id": row, "question": f"{row}?", "context": "It rained.", "answer": f"{row}.", "note": None, "tags": []}
        | ({"hint": "Look up."} if row else {})
        for row in range(3)
    ]
    read = read_task((f"line {row}", record) for row, record in enumerate(rows))
    assert read.unread == ("id", "hint")
    assert read.remark == "; not read: id, hint"
    second = read_task([("1", {"question": "Wet?", "passage": "Rain.", "context": "Sun.", "answer": "yes"})])
    assert second.remark == "; not read: context"


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Wet?", "choices": ["no", "yes"], "answer": "B", "answer_index": 1},
        {"question": "Wet?", "A": "no", "B": "yes", "C": "", "answer": "B"},
        {"text": "It rained.", "body": "It rained."},
    ],
)
def test_nothing_is_named_where_all_is_read(record: dict[str, Any]):
    assert read_task([("1", record)]).remark == ""


def test_many_long_or_unwritable_names_make_a_short_line():
    wide = {"question": "Wet?", "answer": "yes"} | {f"{number}{'x' * 500}": 1 for number in range(200)}
    remark = read_task([("1", wide)]).remark
    assert remark.endswith(" and 188 more")
    assert len(remark) < 700
    assert read_task([("1", {"question": "Wet?", "answer": "yes", "\ud83d": 1})]).remark == "; not read: \\ud83d"


def test_what_is_not_read_stands_in_the_log_beside_the_example(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = [{"question": random_text(row, 9), "answer": random_text(row, 3), "source": "exam"} for row in range(20)]
    parameters = corpus_in(tmp_path)
    write_jsonl(tmp_path / "quiz.jsonl", rows)
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        prepare_text(parameters, root=tmp_path, downloads=tmp_path)
    (told,) = [message for message in caplog.messages if message.startswith("corpus.tasks.quiz: 20 items")]
    assert told.endswith(", without other options; not read: source")
