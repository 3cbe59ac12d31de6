"""Target tasks: questions with a gold answer, dealt to two halves and tokenised for scoring.

An item is scored as the text "question answer": the loss is taken over the answer's tokens alone, or over all of them.
Question and answer are tokenised apart, so the answer's tokens are a suffix whatever the tokenizer would merge. A plain
text is an item that is all answer: it follows the end-of-text token, as a training document does. What else could be
answered is kept beside the gold answer where an item offers a choice (`corpus.choices`).
"""

import hashlib
import logging
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer
from tikmix_pipeline.errors import TikmixError

Half = Literal["query", "evaluation"]
HALVES: tuple[Half, Half] = ("query", "evaluation")

_Item = TypeVar("_Item")

_logger = logging.getLogger(__name__)

_LONGEST_SHOWN = 160


@dataclass(frozen=True)
class Item:
    """One question with its gold answer, or a plain text."""

    question: str
    """The bare question; empty where the item is a plain text."""
    answer: str
    """The gold answer's text, without an option's letter; of a plain text, all of it."""
    passage: str = ""
    """The text the question is about; empty where there is none."""
    options: tuple[str, ...] = ()
    """Of an item that offers a choice at least two, without their letters; else none."""
    gold: int | None = None
    """Which of the options is the answer, from 0."""

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


Items = dict[Half, list[Item]]


def describe_item(item: Item) -> str:
    """Say in one line how an item was understood: what is asked, what is answered, and out of what."""
    if not item.question:
        return f"plain text {_short(item.answer)}"
    about = f"about the passage {_short(item.passage)}, " if item.passage else ""
    asked = f"{about}{_short(item.question)} is answered by {_short(item.answer)}"
    if item.gold is None:
        return f"{asked}, without other options"
    return f"{asked}, option {item.gold + 1} of {len(item.options)}: {' | '.join(map(_short, item.options))}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f"'{line if len(line) <= _LONGEST_SHOWN else f'{line[:_LONGEST_SHOWN]}...'}'"


def split_items(items: Sequence[Item], *, max_items: int | None, seed: int) -> Items:
    """Deal a task's items to its two halves: `query` guides the mixture, `evaluation` judges it.

    Topics are taken in the order of a seeded hash of each; the first half of the items are queries. No topic is in both
    halves, not even written otherwise (`without_spelling`).

    Raises:
        TikmixError: there are fewer than two topics.
    """
    halves = _dealt(items, _written, max_items, seed)
    query, evaluation = ({_plain(item) for item in halves[half]} for half in HALVES)
    # only where a topic would be on both sides: the halves of other tasks stay what they are
    return halves if query.isdisjoint(evaluation) else _dealt(items, _plain, max_items, seed)


def _written(item: Item) -> str:
    return item.topic


def _plain(item: Item) -> str:
    return without_spelling(item.topic)


def without_spelling(text: str) -> str:
    """Return a text without what copies differ in: case, white space and Unicode's forms of one letter."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def _dealt(items: Sequence[Item], topic_of: Callable[[Item], str], max_items: int | None, seed: int) -> Items:
    by_topic: dict[str, list[Item]] = {}
    for item in items:
        by_topic.setdefault(topic_of(item), []).append(item)

    def order(topic: str) -> bytes:
        first = min(item.topic for item in by_topic[topic])  # whatever the order of the items
        return hashlib.blake2b(first.encode(), key=str(seed).encode()).digest()

    chosen = [item for topic in sorted(by_topic, key=order) for item in by_topic[topic]][:max_items]
    middle = len(chosen) // 2
    while middle > 0 and topic_of(chosen[middle - 1]) == topic_of(chosen[middle]):
        middle -= 1
    if middle == 0:
        raise TikmixError(
            f"{len(chosen)} items on {len(set(map(topic_of, chosen)))} different questions or passages cannot be split "
            "into a query and an evaluation half. Add items, or raise max_items."
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
    option_ids: list[list[int]] = field(default_factory=list)
    """Every option as a completion, the answer among them; none where the item offers no choice."""
    option_bytes: list[int] = field(default_factory=list)
    """UTF-8 bytes of each option by itself."""
    gold: int | None = None
    """Which of the options is the answer, from 0."""


def tokenise_items(items: Sequence[Item], tokenizer: CorpusTokenizer) -> list[TokenisedItem]:
    """Encode prompts, completions and options, each apart.

    Raises:
        TikmixError: an answer or option gives no token, so that there is nothing to take a loss over.
    """
    prompts = [item.prompt for item in items]
    completions = [item.completion for item in items]
    options = iter(tokenizer.encode([f" {option}" for item in items for option in item.options]))
    encoded = zip(items, completions, tokenizer.encode(prompts), tokenizer.encode(completions), strict=True)
    tokenised = [
        TokenisedItem(
            question_ids=[tokenizer.end_of_text_id, *question_ids],
            answer_ids=list(answer_ids),
            answer_bytes=len(completion.encode()),
            text_bytes=len(item.prompt.encode()) + len(completion.encode()),
            option_ids=[list(next(options)) for _ in item.options],
            option_bytes=[len(option.encode()) for option in item.options],
            gold=item.gold,
        )
        for item, completion, question_ids, answer_ids in encoded
    ]
    _require_tokens(items, tokenised)
    return tokenised


def _require_tokens(items: Sequence[Item], tokenised: Sequence[TokenisedItem]) -> None:
    lost = [item for item, ids in zip(items, tokenised, strict=True) if not all([ids.answer_ids, *ids.option_ids])]
    if lost:
        raise TikmixError(
            f"the tokenizer has no token for an answer or an option of {len(lost)} of {len(items)} items, the first of "
            f"which is: {describe_item(lost[0])}. Take a tokenizer that knows the letters of this text "
            "(corpus.tokenizer.path), or leave these items out."
        )


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
    columns |= dict.fromkeys(("answer_bytes", "text_bytes", "gold"), pa.int32())
    columns |= {"option_ids": pa.list_(pa.list_(pa.int32())), "option_bytes": pa.list_(pa.int32())}
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
        return _turned(self._half(task, half), limit, turn)

    def choices(self, task: str, half: Half, limit: int | None = None, turn: int = 0) -> list[TokenisedItem]:
        """Return the same of those items that offer a choice, which may be none."""
        return _turned([item for item in self._half(task, half) if item.option_ids], limit, turn)

    def bytes_per_token(self, task: str, half: Half, loss: Literal["answer", "text"]) -> float:
        """Return the UTF-8 bytes per token of what is scored of a half: answers, or whole items but the first token."""
        items = self.items(task, half)
        if loss == "answer":
            return sum(item.answer_bytes for item in items) / sum(len(item.answer_ids) for item in items)
        tokens = sum(len(item.question_ids) + len(item.answer_ids) - 1 for item in items)
        return sum(item.text_bytes for item in items) / tokens

    def _half(self, task: str, half: Half) -> Sequence[TokenisedItem]:
        if task not in self._items:
            raise TikmixError(f"the corpus has no task {task!r}; its tasks are {', '.join(self.tasks)}.")
        return self._items[task][half]


def _turned(items: Sequence[TokenisedItem], limit: int | None, turn: int) -> list[TokenisedItem]:
    if limit is None or limit >= len(items):
        return list(items)
    first = turn * limit % len(items)
    return [*items[first:], *items[:first]][:limit]


def item_batches(
    items: Sequence[TokenisedItem], *, context: int, batch_size: int, loss: Literal["answer", "text"], pad_id: int
) -> list[TokenBatch]:
    """Batch at least one item, those of like length together, right-padded to the longest of the batch with `pad_id`.

    Questions are cut from the left until an item has at most `context` + 1 tokens; of an answer that is longer than
    `context` by itself, the beginning is kept. Where `loss` is `answer` only answer tokens carry loss, where it is
    `text` all but the first token do; padding never does.
    """
    ordered = [items[number] for number in by_length(items)]
    cut = sum(len(item.answer_ids) > context for item in items)
    if cut:
        _logger.info("%d of %d answers or texts are cut to their first %d tokens", cut, len(items), context)
    return [
        item_batch(ordered[start : start + batch_size], context=context, loss=loss, pad_id=pad_id)
        for start in range(0, len(ordered), batch_size)
    ]


def by_length(items: Sequence[TokenisedItem]) -> list[int]:
    """Return the numbers of the items from the shortest to the longest: the order of the rows of `item_batches`."""
    return sorted(range(len(items)), key=lambda number: len(items[number].question_ids) + len(items[number].answer_ids))


def item_batch(
    items: Sequence[TokenisedItem], *, context: int, loss: Literal["answer", "text"], pad_id: int
) -> TokenBatch:
    """Make one batch of at least one item, in the order given; for the rest see `item_batches`."""
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
