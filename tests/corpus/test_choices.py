from pathlib import Path
from typing import Any

import pytest
from corpus_examples import corpus_in, random_text, write_jsonl

from tikmix_pipeline.corpus.choices import ChoiceItem, evaluation_choices, read_choices
from tikmix_pipeline.corpus.tasks import Item, read_items, split_items
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import CorpusParameters


def choices_of(*records: dict[str, Any]) -> list[ChoiceItem | None]:
    return list(read_choices((f"line {number}", record) for number, record in enumerate(records)).values())


def options_corpus(folder: Path, **task: Any) -> tuple[CorpusParameters, list[dict[str, Any]]]:
    """A task of 21 records, three of which ask the same thing about the same passage, beside one of free answers."""
    rows = [
        {
            "question": f"{random_text(row, 6).strip()}?",
            "options": f"A. {random_text(100 + row, 2)}B. {random_text(200 + row, 2)}C. {random_text(300 + row, 2)}",
            "answer": f"{'ABC'[row % 3]}.",
            "passage": random_text(400 + row // 3, 9),
        }
        for row in range(20)
    ]
    rows.append(dict(rows[4]))
    write_jsonl(folder / "choice.jsonl", rows)
    parameters = corpus_in(folder)
    tasks = {name: part.model_dump() for name, part in parameters.tasks.items()}
    tasks["choice"] = {"sources": [{"kind": "files", "path": "choice.jsonl"}]} | task
    return CorpusParameters.model_validate(parameters.model_dump() | {"tasks": tasks}), rows


def test_every_option_is_kept_and_the_gold_one_named():
    (choice,) = choices_of(
        {"question": "Where?", "options": 'A. bank\nB. a mall,\nfar away\nC. rest"', "answer": "B. a mall,\nfar away"}
    )
    assert choice == ChoiceItem(Item("Where?", "a mall,\nfar away"), ("bank", "a mall,\nfar away", "rest"), 1)


def test_the_gold_option_goes_by_its_letter_where_two_read_the_same():
    (choice,) = choices_of({"question": "Which?", "options": "A. same\nB. same\nC. other", "answer": "B. same"})
    assert choice is not None
    assert choice.gold == 1


def test_letters_need_not_begin_at_the_first():
    (choice,) = choices_of({"question": "Which?", "options": "C. one\nD. two", "answer": "D"})
    assert choice is not None
    assert (choice.options, choice.gold) == (("one", "two"), 1)


def test_answers_that_all_items_share_are_the_options():
    rows = [{"question": f"Is {row} even?", "answer": ["Yes", "No"][row % 2]} for row in range(6)]
    choices = choices_of(*rows)
    assert all(choice is not None and choice.options == ("No", "Yes") for choice in choices)
    assert [choice.gold for choice in choices if choice] == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    "answers",
    [["a", "b", "c", "d", "e", "f"] * 2, ["yes", "no", "yes", "perhaps"], ["yes", "yes"]],
    ids=["too many", "one given once", "one only"],
)
def test_free_answers_offer_no_choice(answers: list[str]):
    choices = choices_of(*({"question": f"{row}?", "answer": answer} for row, answer in enumerate(answers)))
    assert choices == [None] * len(answers)


def test_one_option_and_an_empty_one_offer_no_choice():
    choices = choices_of(
        {"question": "Which?", "options": "A. only", "answer": "A"},
        {"question": "And now?", "options": "A. \nB. other", "answer": "B"},
    )
    assert choices == [None, None]


def test_an_answer_that_names_no_option_is_refused_with_its_place():
    with pytest.raises(TikmixError, match=r"line 0: the answer 'C' names none of the options A, B"):
        choices_of({"question": "Which?", "options": "A. one\nB. two", "answer": "C"})


@pytest.mark.parametrize("max_items", [None, 9])
def test_items_are_the_evaluation_half_of_the_task(tmp_path: Path, max_items: int | None):
    parameters, rows = options_corpus(tmp_path, max_items=max_items)
    choices = evaluation_choices(parameters, root=tmp_path, downloads=tmp_path)
    items = read_items((str(number), row) for number, row in enumerate(rows))
    halves = split_items(items, max_items=max_items, seed=parameters.seed)
    assert [choice.item for choice in choices["choice"]] == halves["evaluation"]
    assert all(choice.options[choice.gold] == choice.item.answer for choice in choices["choice"])


def test_tasks_of_free_answers_are_left_out(tmp_path: Path):
    parameters, _ = options_corpus(tmp_path)
    assert set(parameters.tasks) == {"choice", "quiz"}
    assert set(evaluation_choices(parameters, root=tmp_path, downloads=tmp_path)) == {"choice"}


def test_a_task_at_fault_is_named(tmp_path: Path):
    parameters, _ = options_corpus(tmp_path)
    (tmp_path / "choice.jsonl").unlink()
    with pytest.raises(TikmixError, match=r"corpus\.tasks\.choice: no file matches"):
        evaluation_choices(parameters, root=tmp_path, downloads=tmp_path)
