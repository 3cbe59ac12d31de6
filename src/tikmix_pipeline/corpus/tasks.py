"""Target tasks: questions with a gold answer, read from records and tokenised for scoring.

An item is scored as the text "question answer": the loss is taken over the answer's tokens alone, or over all of them.
Question and answer are tokenised apart, so the answer's tokens are a suffix whatever the tokenizer would merge. A plain
text is an item that is all answer: it follows the end-of-text token, as a training document does.

Scoring by loss needs the gold answer only, and so does `tasks.parquet`. Accuracy needs what else could be answered: the
options are read from the sources again.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.text import Record, text_of
from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer
from tikmix_pipeline.errors import TikmixError

Half = Literal["query", "evaluation"]
HALVES: tuple[Half, Half] = ("query", "evaluation")

_Item = TypeVar("_Item")

_logger = logging.getLogger(__name__)

# an option begins where a line starts with its letter: options may themselves hold newlines
_OPTION_START = re.compile(r"^(?=[A-Z]\. )", re.MULTILINE)
_OPTION = re.compile(r"([A-Z])\. (.*)", re.DOTALL)
_MOST_FIXED_ANSWERS = 5
_GOLD_LETTER = re.compile(r"([A-Z])(?:\.(?:\s.*)?)?\Z", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """One question with its gold answer, or a plain text."""

    question: str
    """The bare question; empty where the item is a plain text."""
    answer: str
    """The gold answer's text, without an option's letter; of a plain text, all of it."""
    passage: str = ""
    """The text the question is about; empty where there is none."""

    @property
    def prompt(self) -> str:
        """What the model is given; nothing where the item is a plain text."""
        if not self.question:
            return ""
        passage = f"{self.passage}\n" if self.passage else ""
        return f"{passage}Question: {self.question}\nAnswer:"

    @property
    def completion(self) -> str:
        """What the model is to continue with."""
        return f" {self.answer}" if self.question else self.answer

    @property
    def text(self) -> str:
        """The item's own words, without those of the prompt; what contamination is looked up by."""
        return f"{self.passage}\n{self.question} {self.answer}" if self.question else self.answer

    @property
    def topic(self) -> str:
        """Items of one topic must stay in one half: questions about one passage, or one question asked twice."""
        return self.passage or self.question or self.answer


def parse_item(record: Any, where: str) -> Item:
    """Read an item from a record with `question`, `answer` and, where there are any, `options` and `passage`.

    With `options` ("A. ...", one after the other in a text), the answer names one by its letter. Without, the answer
    is a text. A record that has neither question nor answer is a plain text, in `text`.

    Raises:
        TikmixError: a field is missing, or the answer's letter is none of the options'.
    """
    if isinstance(record, dict) and not {"question", "answer"} & set(record):
        return _plain_text(record, where)
    question = text_of(record, "question", where).strip()
    answer = text_of(record, "answer", where).strip()
    if record.get("options"):
        options = options_by_letter(text_of(record, "options", where))
        answer = options[gold_letter(options, answer, where)]
    passage = text_of(record, "passage", where).strip() if record.get("passage") else ""
    if not question or not answer:
        raise TikmixError(f"{where}: an item needs a question and an answer that are not empty.")
    return Item(question, answer, passage)


def _plain_text(record: dict[str, Any], where: str) -> Item:
    if "text" not in record:
        raise TikmixError(
            f"{where}: an item has the fields 'question' and 'answer', or is a plain text in 'text' or in the source's "
            f"`field`; this record's fields are {', '.join(map(repr, record)) or 'none'}."
        )
    text = text_of(record, "text", where).strip()
    if not text:
        raise TikmixError(f"{where}: the text is empty. Drop the record, or give it a text.")
    return Item("", text)


def options_by_letter(options: str) -> dict[str, str]:
    """Return the options of a text of "A. ..." lines by their letters."""
    matches = map(_OPTION.match, _OPTION_START.split(options))
    return {match[1]: _without_stray_quote(match[2].strip()) for match in matches if match}


def _without_stray_quote(text: str) -> str:
    return text[:-1].rstrip() if text.endswith('"') and text.count('"') == 1 else text


def gold_letter(options: Mapping[str, str], answer: str, where: str) -> str:
    """Return the letter of the option that an answer names. One that names none raises TikmixError."""
    gold = _GOLD_LETTER.match(answer)
    if gold is None or gold[1] not in options:
        raise TikmixError(
            f"{where}: the answer {answer!r} names none of the options {', '.join(options) or '(none found)'}. Write "
            "options as lines 'A. ...' and the answer as 'A. ...', or leave `options` out and give the answer as text."
        )
    return gold[1]


def read_items(records: Iterable[Record]) -> list[Item]:
    """Read the distinct items of a task in their order. A record that is no item raises TikmixError."""
    return list(dict.fromkeys(parse_item(record, where) for where, record in records))


@dataclass(frozen=True)
class ChoiceItem:
    """An item with at least two options, without their letters, of which `options[gold]` is the answer."""

    item: Item
    options: tuple[str, ...]
    gold: int


def read_choices(records: Iterable[Record]) -> dict[Item, ChoiceItem | None]:
    """Read the distinct items of a task in their order, each with its options where it has at least two.

    Where no record has options and all share a few answers, such as yes and no, these are the options. Those are no
    options one of which is empty: no model can be asked to continue with nothing.

    Raises:
        TikmixError: a record is no item.
    """
    by_item: dict[Item, ChoiceItem | None] = {}
    has_options = False
    for where, record in records:
        item = parse_item(record, where)
        options = options_by_letter(text_of(record, "options", where)) if record.get("options") else {}
        has_options = has_options or bool(options)
        if item in by_item:
            continue
        by_item[item] = None
        if len(options) > 1 and all(options.values()):
            letter = gold_letter(options, text_of(record, "answer", where).strip(), where)
            by_item[item] = ChoiceItem(item, tuple(options.values()), list(options).index(letter))
    counts = Counter(item.answer for item in by_item)
    # all share a few answers, none of which is given only once
    if not has_options and 2 <= len(counts) <= _MOST_FIXED_ANSWERS and min(counts.values()) > 1:
        answers = tuple(sorted(counts))
        return {item: ChoiceItem(item, answers, answers.index(item.answer)) for item in by_item}
    return by_item


def split_items(items: Sequence[Item], *, max_items: int | None, seed: int) -> dict[Half, list[Item]]:
    """Deal a task's items to its two halves: `query` guides the mixture, `evaluation` judges it.

    Topics are taken in the order of a seeded hash of each; the first half of the items are queries.

    Raises:
        TikmixError: there are fewer than two topics.
    """
    by_topic: dict[str, list[Item]] = {}
    for item in items:
        by_topic.setdefault(item.topic, []).append(item)
    topics = sorted(by_topic, key=lambda topic: hashlib.blake2b(topic.encode(), key=str(seed).encode()).digest())
    chosen = [item for topic in topics for item in by_topic[topic]][:max_items]
    middle = len(chosen) // 2
    while middle > 0 and chosen[middle - 1].topic == chosen[middle].topic:
        middle -= 1
    if middle == 0:
        raise TikmixError(
            f"{len(chosen)} items on {len({item.topic for item in chosen})} different questions or passages cannot be "
            "split into a query and an evaluation half. Add items, or raise max_items."
        )
    return {"query": chosen[:middle], "evaluation": chosen[middle:]}


@dataclass(frozen=True)
class TokenisedItem:
    """An item as token ids."""

    question_ids: list[int]
    """The end-of-text token, as before any document, and the prompt."""
    answer_ids: list[int]
    """The completion."""
    answer_bytes: int
    """UTF-8 bytes of the completion."""
    text_bytes: int
    """UTF-8 bytes of prompt and completion."""


def tokenise_items(items: Sequence[Item], tokenizer: CorpusTokenizer) -> list[TokenisedItem]:
    """Encode prompts and completions, each apart."""
    prompts = [item.prompt for item in items]
    completions = [item.completion for item in items]
    encoded = zip(prompts, completions, tokenizer.encode(prompts), tokenizer.encode(completions), strict=True)
    return [
        TokenisedItem(
            question_ids=[tokenizer.end_of_text_id, *question_ids],
            answer_ids=list(answer_ids),
            answer_bytes=len(completion.encode()),
            text_bytes=len(prompt.encode()) + len(completion.encode()),
        )
        for prompt, completion, question_ids, answer_ids in encoded
    ]


def item_rows(tasks: Mapping[str, Mapping[Half, Sequence[Item | TokenisedItem]]]) -> list[dict[str, Any]]:
    """Return a row per item of all tasks, with its task, its half and its fields."""
    return [
        {"task": task, "half": half, **asdict(item)}
        for task, halves in tasks.items()
        for half, items in halves.items()
        for item in items
    ]


def items_of_rows(rows: Iterable[dict[str, Any]], kind: Callable[..., _Item]) -> dict[str, dict[Half, list[_Item]]]:
    """Return by task and half the items that `item_rows` took."""
    items: dict[str, dict[Half, list[_Item]]] = {}
    for row in rows:
        task, half = row.pop("task"), row.pop("half")
        items.setdefault(task, {}).setdefault(half, []).append(kind(**row))
    return items


def write_task_items(path: Path, tasks: Mapping[str, Mapping[Half, Sequence[TokenisedItem]]]) -> None:
    """Write the items of all tasks as one table."""
    columns = {"task": pa.string(), "half": pa.string()}
    columns |= dict.fromkeys(("question_ids", "answer_ids"), pa.list_(pa.int32()))
    columns |= dict.fromkeys(("answer_bytes", "text_bytes"), pa.int32())
    pq.write_table(pa.Table.from_pylist(item_rows(tasks), schema=pa.schema(columns)), path)


class TaskItems:
    """The tokenised items of a corpus, by task and half."""

    def __init__(self, items: Mapping[str, Mapping[Half, Sequence[TokenisedItem]]]):
        self._items = items
        self.tasks = tuple(items)

    @classmethod
    def open(cls, path: Path) -> "TaskItems":
        """Read `tasks.parquet`. A file that is missing or damaged raises TikmixError."""
        try:
            rows = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise TikmixError(
                f"{path} cannot be read ({error}). Delete its folder and run the `corpus` pipeline again."
            ) from error
        return cls(items_of_rows(rows, TokenisedItem))

    def items(self, task: str, half: Half, limit: int | None = None, turn: int = 0) -> list[TokenisedItem]:
        """Return the items of one half of a task, or `limit` of them: another part of the half every turn, round it.

        No such task raises TikmixError.
        """
        if task not in self._items:
            raise TikmixError(f"the corpus has no task {task!r}; its tasks are {', '.join(self.tasks)}.")
        items = self._items[task][half]
        if limit is None or limit >= len(items):
            return list(items)
        first = turn * limit % len(items)
        return [*items[first:], *items[:first]][:limit]

    def bytes_per_token(self, task: str, half: Half, loss: Literal["answer", "text"]) -> float:
        """Return the UTF-8 bytes per token of what is scored of a half: answers, or whole items but the first token."""
        items = self.items(task, half)
        if loss == "answer":
            return sum(item.answer_bytes for item in items) / sum(len(item.answer_ids) for item in items)
        tokens = sum(len(item.question_ids) + len(item.answer_ids) - 1 for item in items)
        return sum(item.text_bytes for item in items) / tokens


def item_batches(
    items: Sequence[TokenisedItem], *, context: int, batch_size: int, loss: Literal["answer", "text"], pad_id: int
) -> list[TokenBatch]:
    """Batch at least one item, those of like length together, right-padded to the longest of the batch with `pad_id`.

    Questions are cut from the left until an item has at most `context` + 1 tokens; of an answer that is longer than
    `context` by itself, the beginning is kept. Where `loss` is `answer` only answer tokens carry loss, where it is
    `text` all but the first token do; padding never does.
    """
    ordered = sorted(items, key=lambda item: len(item.question_ids) + len(item.answer_ids))
    cut = sum(len(item.answer_ids) > context for item in items)
    if cut:
        _logger.info("%d of %d answers or texts are cut to their first %d tokens", cut, len(items), context)
    return [
        _item_batch(ordered[start : start + batch_size], context, loss, pad_id)
        for start in range(0, len(ordered), batch_size)
    ]


def _item_batch(items: Sequence[TokenisedItem], context: int, loss: str, pad_id: int) -> TokenBatch:
    answers = [item.answer_ids[:context] for item in items]
    questions = [item.question_ids[-(context + 1 - len(answer)) :] for item, answer in zip(items, answers, strict=True)]
    width = max(len(question) + len(answer) for question, answer in zip(questions, answers, strict=True))
    tokens_BS = np.full((len(items), width), pad_id, dtype=np.int64)
    loss_BS = np.zeros((len(items), width), dtype=np.bool_)
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        end = len(question) + len(answer)
        tokens_BS[row, :end] = [*question, *answer]
        loss_BS[row, len(question) if loss == "answer" else 1 : end] = True
    return TokenBatch(tokens_BS, loss_BS)
