import hashlib
import logging
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_examples import corpus_in, random_text, without_other_letters, write_jsonl

from tikmix_pipeline.corpus.build import evaluation_choices, prepare_text
from tikmix_pipeline.corpus.task_records import parse_item, read_items
from tikmix_pipeline.corpus.tasks import (
    HALVES,
    Item,
    TaskItems,
    TokenisedItem,
    describe_item,
    item_batches,
    split_items,
    tokenise_items,
    write_task_items,
)
from tikmix_pipeline.corpus.tokenizer import train_tokenizer
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import CorpusParameters

ITEMS = [Item(f"{random_text(seed, 8).strip()}?", random_text(seed + 100, 2).strip()) for seed in range(31)]
TOKENIZER = train_tokenizer([item.text for item in ITEMS], 300)


def test_a_plain_text_is_an_item_that_is_all_answer():
    item = parse_item({"text": " Once upon a time. ", "id": 3}, "tasks, line 1")
    assert item == Item("", "Once upon a time.")
    assert (item.prompt, item.completion, item.text, item.topic) == ("", *3 * ["Once upon a time."])
    (tokens,) = tokenise_items([item], TOKENIZER)
    assert tokens.question_ids == [TOKENIZER.end_of_text_id]
    assert TOKENIZER.backend.decode(tokens.answer_ids) == item.answer
    assert tokens.answer_bytes == tokens.text_bytes == len(item.answer)
    answer, text = (
        item_batches([tokens], context=256, batch_size=1, loss=loss, pad_id=0)[0] for loss in ("answer", "text")
    )
    assert (answer.loss_BS == text.loss_BS).all()


def test_plain_texts_are_dealt_to_both_halves():
    halves = split_items([Item("", random_text(seed)) for seed in range(8)], max_items=None, seed=0)
    assert [len(halves[half]) for half in HALVES] == [4, 4]


def test_halves_part_the_items_evenly_and_by_seed():
    halves = split_items(ITEMS, max_items=None, seed=0)
    assert {half: len(items) for half, items in halves.items()} == {"query": 15, "evaluation": 16}
    assert {*halves["query"], *halves["evaluation"]} == set(ITEMS)
    assert split_items(ITEMS[::-1], max_items=None, seed=0) == halves
    assert split_items(ITEMS, max_items=None, seed=1) != halves


def test_items_on_one_passage_stay_in_one_half():
    items = [Item(f"Question {number}?", "yes", f"Passage {number % 5}.") for number in range(40)]
    halves = split_items(items, max_items=None, seed=0)
    assert not {item.passage for item in halves["query"]} & {item.passage for item in halves["evaluation"]}


COPIES: dict[str, Callable[[str], str]] = {
    "case": str.upper,
    "white space": lambda text: f"{text}\u00a0".replace(" ", "  "),
    "form": lambda text: unicodedata.normalize("NFD", text),
    "full width": lambda text: text.replace("?", "\uff1f"),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_question_that_is_written_twice_stays_in_one_half(copy: str):
    questions = [f"É {item.question}" for item in ITEMS]
    assert all(COPIES[copy](question) != question for question in questions)
    items = [Item(question, "x") for question in [*questions, *map(COPIES[copy], questions)]]
    halves = split_items(items, max_items=None, seed=0)
    assert [len(halves[half]) for half in HALVES] == [30, 32]
    for half in HALVES:
        written = {item.question for item in halves[half]}
        assert {
            copied for question in questions if question in written for copied in [COPIES[copy](question)]
        } <= written
    again = split_items(items[::-1], max_items=None, seed=0)
    assert [set(again[half]) for half in HALVES] == [set(halves[half]) for half in HALVES]


def test_halves_are_those_of_the_questions_as_written_where_these_part_no_copies():
    copy = Item(ITEMS[0].question.upper(), "x")
    kept = 0
    for seed in range(20):

        def order(item: Item, seed: int = seed) -> bytes:
            return hashlib.blake2b(item.question.encode(), key=str(seed).encode()).digest()

        written = sorted([*ITEMS, copy], key=order)
        halves = split_items([*ITEMS, copy], max_items=None, seed=seed)
        assert (copy in halves["query"]) == (ITEMS[0] in halves["query"])
        if (copy in written[:16]) == (ITEMS[0] in written[:16]):
            kept += 1
            assert halves == {"query": written[:16], "evaluation": written[16:]}
    assert 0 < kept < 20


def test_fewer_items_may_be_asked_for():
    halves = split_items(ITEMS, max_items=10, seed=0)
    assert [len(halves[half]) for half in HALVES] == [5, 5]
    assert set(halves["query"]) <= set(split_items(ITEMS, max_items=None, seed=0)["query"])


@pytest.mark.parametrize("items", [[], ITEMS[:1], [Item("a?", "x", "same"), Item("b?", "y", "same")]])
def test_a_task_too_small_for_two_halves_is_refused(items: list[Item]):
    with pytest.raises(TikmixError, match="cannot be split into a query and an evaluation half"):
        split_items(items, max_items=None, seed=0)


def test_answer_tokens_are_a_suffix_that_decodes_to_the_answer():
    for item, tokens in zip(ITEMS, tokenise_items(ITEMS, TOKENIZER), strict=True):
        assert tokens.question_ids[0] == TOKENIZER.end_of_text_id
        assert TOKENIZER.backend.decode(tokens.question_ids[1:]) == item.prompt
        assert TOKENIZER.backend.decode(tokens.answer_ids) == f" {item.answer}"
        assert tokens.answer_bytes == len(f" {item.answer}".encode())
        assert tokens.text_bytes == len(f"{item.prompt} {item.answer}".encode())


def test_an_answer_or_option_without_a_token_is_told_by_its_item():
    tokenizer = without_other_letters(TOKENIZER)
    good = Item("bima dul?", "kost", options=("kost", "lima"), gold=0)
    assert len(tokenise_items([good], tokenizer)) == 1
    for lost in (Item("bima dul?", "红"), replace(good, options=("kost", "蓝")), Item("", "红")):
        message = f"no token for an answer or an option of 1 of 2 items, .* is: {re.escape(describe_item(lost))}"
        with pytest.raises(TikmixError, match=message):
            tokenise_items([good, lost], tokenizer)


def test_items_survive_being_written(tmp_path: Path):
    tokens = tokenise_items(ITEMS, TOKENIZER)
    write_task_items(tmp_path / "tasks.parquet", {"quiz": {"query": tokens[:10], "evaluation": tokens[10:]}})
    opened = TaskItems.open(tmp_path / "tasks.parquet")
    assert opened.tasks == ("quiz",)
    assert opened.items("quiz", "query") == tokens[:10]
    assert opened.items("quiz", "evaluation", limit=3) == tokens[10:13]
    with pytest.raises(TikmixError, match="no task 'quizz'; its tasks are quiz"):
        opened.items("quizz", "query")


def test_every_turn_takes_the_items_that_follow_and_none_twice_before_all_were_taken():
    opened = TaskItems({"quiz": {"query": tokenise_items(ITEMS, TOKENIZER)[:10]}})
    every = opened.items("quiz", "query")
    turns = [opened.items("quiz", "query", 4, turn) for turn in range(3)]
    assert turns == [every[:4], every[4:8], [*every[8:], *every[:2]]]
    assert opened.items("quiz", "query", 20, turn=3) == every


def test_a_damaged_task_file_is_refused(tmp_path: Path):
    (tmp_path / "tasks.parquet").write_bytes(b"PAR1")
    with pytest.raises(TikmixError, match=r"tasks.parquet cannot be read .*run the `corpus` pipeline again"):
        TaskItems.open(tmp_path / "tasks.parquet")


def test_bytes_per_token_are_those_of_what_carries_loss():
    def item(question: int, answer: int, answer_bytes: int, text_bytes: int) -> TokenisedItem:
        return TokenisedItem([0] * question, [1] * answer, answer_bytes=answer_bytes, text_bytes=text_bytes)

    query = [item(4, 2, 7, 20), item(3, 1, 5, 10)]
    tasks = TaskItems({"arc": {"query": query, "evaluation": [item(2, 9, 1, 1)]}})
    assert tasks.bytes_per_token("arc", "query", "answer") == 12 / 3
    # of a whole item the first token carries none
    assert tasks.bytes_per_token("arc", "query", "text") == 30 / (5 + 3)


def item_of(question: int, answer: int) -> TokenisedItem:
    return TokenisedItem(list(range(1, question + 1)), list(range(100, 100 + answer)), answer, question + answer)


def test_batches_hold_every_item_once_with_loss_on_the_answer():
    items = [item_of(question, answer) for question, answer in [(5, 2), (9, 1), (3, 4), (4, 1), (7, 3)]]
    batches = item_batches(items, context=16, batch_size=2, loss="answer", pad_id=0)
    rows = [
        (tokens[tokens != 0].tolist(), tokens[loss].tolist())
        for batch in batches
        for tokens, loss in zip(batch.tokens_BS, batch.loss_BS, strict=True)
    ]
    expected = [([*item.question_ids, *item.answer_ids], item.answer_ids) for item in items]
    assert sorted(rows) == sorted(expected)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    lengths = [len(row) for row, _ in rows]
    assert lengths == sorted(lengths)


def test_loss_on_the_text_leaves_out_the_first_token_and_padding():
    (batch,) = item_batches([item_of(3, 1), item_of(5, 2)], context=16, batch_size=8, loss="text", pad_id=0)
    assert batch.loss_BS.tolist() == [[False, True, True, True, False, False, False], [False] + [True] * 6]


def test_long_questions_lose_their_beginning():
    (batch,) = item_batches([item_of(20, 3)], context=7, batch_size=1, loss="answer", pad_id=0)
    assert batch.tokens_BS.tolist() == [[16, 17, 18, 19, 20, 100, 101, 102]]
    assert batch.loss_tokens == 3


def test_of_an_answer_longer_than_the_context_the_beginning_is_scored(caplog: pytest.LogCaptureFixture):
    item = item_of(5, 9)
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        (batch,) = item_batches([item], context=7, batch_size=1, loss="answer", pad_id=0)
    assert caplog.messages == ["1 of 1 answers or texts are cut to their first 7 tokens"]
    assert batch.tokens_BS.tolist() == [[item.question_ids[-1], *item.answer_ids[:7]]]
    assert batch.loss_BS.tolist() == [[False] + 7 * [True]]


def test_batches_are_int64_and_bool():
    (batch,) = item_batches([item_of(2, 1)], context=7, batch_size=1, loss="text", pad_id=0)
    assert (batch.tokens_BS.dtype, batch.loss_BS.dtype) == (np.int64, np.bool_)


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


def test_options_are_tokenised_as_answers_are_and_their_bytes_are_their_own():
    item = Item("Where?", "zu Hause – dort", options=("weg", "zu Hause – dort", "nie"), gold=1)
    (tokens,) = tokenise_items([item], TOKENIZER)
    assert [TOKENIZER.backend.decode(ids) for ids in tokens.option_ids] == [f" {option}" for option in item.options]
    assert tokens.option_ids[1] == tokens.answer_ids
    assert tokens.option_bytes == [3, len("zu Hause – dort".encode()), 3]
    assert tokens.gold == 1


def test_choices_are_taken_in_turn_and_leave_out_items_without_options(tmp_path: Path):
    items = [Item(f"{row}?", "a", options=("a", "b"), gold=0) if row % 2 else Item(f"{row}?", "a") for row in range(9)]
    tokens = tokenise_items(items, TOKENIZER)
    write_task_items(tmp_path / "tasks.parquet", {"quiz": {"query": tokens}})
    opened = TaskItems.open(tmp_path / "tasks.parquet")
    assert opened.items("quiz", "query") == tokens
    every = opened.choices("quiz", "query")
    assert every == tokens[1::2]
    assert [opened.choices("quiz", "query", 3, turn) for turn in (0, 1)] == [every[:3], [every[3], *every[:2]]]


def test_a_file_written_before_options_were_kept_offers_no_choice(tmp_path: Path):
    columns = ["task", "half", "question_ids", "answer_ids", "answer_bytes", "text_bytes"]
    write_task_items(tmp_path / "new.parquet", {"quiz": {"query": tokenise_items(ITEMS[:3], TOKENIZER)}})
    pq.write_table(pq.read_table(tmp_path / "new.parquet", columns=columns), tmp_path / "old.parquet")
    opened = TaskItems.open(tmp_path / "old.parquet")
    assert opened.items("quiz", "query") == tokenise_items(ITEMS[:3], TOKENIZER)
    assert opened.choices("quiz", "query") == []


@pytest.mark.parametrize("max_items", [None, 9])
def test_items_are_the_evaluation_half_of_the_task(tmp_path: Path, max_items: int | None):
    parameters, rows = options_corpus(tmp_path, max_items=max_items)
    choices = evaluation_choices(parameters, root=tmp_path, downloads=tmp_path)
    items = read_items((str(number), row) for number, row in enumerate(rows))
    halves = split_items(items, max_items=max_items, seed=parameters.seed)
    assert choices["choice"] == halves["evaluation"]
    assert all(choice.options[choice.gold] == choice.answer for choice in choices["choice"])


def test_tasks_of_free_answers_are_left_out(tmp_path: Path):
    parameters, _ = options_corpus(tmp_path)
    assert set(parameters.tasks) == {"choice", "quiz"}
    assert set(evaluation_choices(parameters, root=tmp_path, downloads=tmp_path)) == {"choice"}


def test_a_task_at_fault_is_named(tmp_path: Path):
    parameters, _ = options_corpus(tmp_path)
    (tmp_path / "choice.jsonl").unlink()
    with pytest.raises(TikmixError, match=r"corpus\.tasks\.choice: no file matches"):
        evaluation_choices(parameters, root=tmp_path, downloads=tmp_path)


def test_how_a_task_was_understood_is_logged_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    parameters, rows = options_corpus(tmp_path)
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        prepared = prepare_text(parameters, root=tmp_path, downloads=tmp_path)
    reports = prepared.sources.tasks
    first = prepared.items["choice"]["query"][0]
    asked = next(row for row in rows if row["question"] == first.question)
    assert "ABC".index(asked["answer"][0]) == first.gold
    assert f"'{first.answer}', option {first.gold + 1} of 3: '{first.options[0]}' | " in reports["choice"].example
    assert (reports["choice"].items, reports["choice"].choices, reports["quiz"].choices) == (20, 20, 0)
    told = [message for message in caplog.messages if message.startswith("corpus.tasks.")]
    assert told == [
        f"corpus.tasks.choice: 20 items, 20 of them with options; {reports['choice'].example}",
        f"corpus.tasks.quiz: {reports['quiz'].items} items, 0 of them with options; {reports['quiz'].example}",
    ]
