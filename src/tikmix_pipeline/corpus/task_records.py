"""Records become items of a task: which of their fields is the question, the passage, the answer, and which is none.

What is not read is named, so that a text which a question is about is not left out in silence.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tikmix_pipeline.corpus.gold_options import gold_options, require_no_bare_letters
from tikmix_pipeline.corpus.options import ANSWERS, FIELDS, Options, options_of
from tikmix_pipeline.corpus.tasks import Item
from tikmix_pipeline.corpus.text import Record, missing_field, text_of
from tikmix_pipeline.errors import TikmixError, quoted

PASSAGES = ("passage", "context", "article", "premise", "paragraph", "story", "document", "support")
"""Fields that may hold the text a question is about, the first that is there first."""

_ASKING = ("text", "sentence")
"""Fields that are the question of a record with options and without a question."""

_NOTHING: tuple[Any, ...] = (None, "", [], {})
_MOST_FIXED_ANSWERS = 5
_MOST_NAMED = 12
_LONGEST_NAME = 40


@dataclass(frozen=True)
class TaskRecords:
    """What the records of a task were read as."""

    items: list[Item]
    unread: tuple[str, ...]
    """Fields with a content that was not read, of any record, in the order in which they were met."""

    @property
    def remark(self) -> str:
        """What to say of the unread fields behind a sentence about the task; nothing where there are none."""
        if not self.unread:
            return ""
        names = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in self.unread]
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        told = f"; not read: {', '.join(names[:_MOST_NAMED])}{more}"
        return told.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class _Draft:
    """An item before its answer is understood."""

    item: Item
    """Without options, the answer as it stands."""
    options: Options | None
    where: str
    unread: tuple[str, ...]


def read_task(records: Iterable[Record]) -> TaskRecords:
    """Read the distinct items of a task in their order; of those that differ in their options alone, the first.

    A record has a `question`, an `answer` and, where there are any, options, in one of the shapes that `corpus.options`
    reads, and a passage, in a field of `PASSAGES`. Without options, the answer is a text. A record that has neither
    question nor answer is a plain text, in `text`, or with options the question is that text. A choice has options that
    differ, none of them empty: no model can be asked to continue with nothing. Where no record has options and all
    share a few answers, such as yes and no, these are the options of each.

    Raises:
        TikmixError: a record is no item, or has no options where others do; the answers do not name options, in one way
            for all, or they are letters of options that are not there.
    """
    drafts = _drafts(records)
    by_text: dict[tuple[str, str, str], Item] = {}
    for item in _understood(drafts):
        by_text.setdefault((item.question, item.answer, item.passage), item)
    items = list(by_text.values())
    counts = Counter(item.answer for item in items)
    names_options = any(draft.options for draft in drafts)
    # all share a few answers, none of which is given only once
    if not names_options and 2 <= len(counts) <= _MOST_FIXED_ANSWERS and min(counts.values()) > 1:
        answers = tuple(sorted(counts))
        items = [replace(item, options=answers, gold=answers.index(item.answer)) for item in items]
    return TaskRecords(items, tuple(dict.fromkeys(name for draft in drafts for name in draft.unread)))


def read_items(records: Iterable[Record]) -> list[Item]:
    """Return the items alone of `read_task`."""
    return read_task(records).items


def every_item(records: Iterable[Record]) -> list[Item]:
    """Return an item for each record, also where two are one item, with no options but the record's own.

    It raises what `read_task` does.
    """
    return _understood(_drafts(records))


def parse_item(record: Any, where: str) -> Item:
    """Read an item from one record alone; for the rest see `read_task`."""
    return every_item([(where, record)])[0]


def _drafts(records: Iterable[Record]) -> list[_Draft]:
    fields: list[str] = []
    drafts: list[_Draft] = []
    for where, record in records:
        drafts.append(_draft(record, where))
        fields = fields or list(record)
    if any(draft.options for draft in drafts):
        _require_options_of_all(drafts)
    else:
        asked = [f"{draft.item.passage}\n{draft.item.question}" for draft in drafts]
        require_no_bare_letters([draft.item.answer for draft in drafts], asked, fields)
    return drafts


def _draft(record: Any, where: str) -> _Draft:
    if not isinstance(record, dict) or "question" in record:
        asking = "question"
    else:
        asking = next((name for name in _ASKING if name in record), "question")
        if "answer" not in record and not _offers_a_choice(record, asking, where):
            return _Draft(_plain_text(record, where), None, where, _unread(record, {"text"}))
    question = text_of(record, asking, where).strip()
    options = options_of(record, where)
    if asking != "question" and options is None:
        raise TikmixError(f"{where}: {missing_field('question', list(record))}")
    answer = options.answer if options else text_of(record, "answer", where).strip()
    if not question or not answer:
        raise TikmixError(f"{where}: an item needs a question and an answer that are not empty.")
    about, passage = _passage(record, question, where)
    read = {asking, about, *(options.fields if options else ["answer"])}
    return _Draft(Item(question, answer, passage), options, where, _unread(record, read))


def _offers_a_choice(record: dict[str, Any], asking: str, where: str) -> bool:
    """Return whether a record without question and answer is a text with options, rather than a plain text.

    Raises:
        TikmixError: beside the text there are options or what an option is named by, and not both.
    """
    if asking not in record:
        return False
    if any(record.get(name) is not None for name in ANSWERS) and options_of(record, where):
        return True
    odd = [name for name in (*FIELDS, *ANSWERS) if record.get(name) not in _NOTHING]
    if odd:
        raise TikmixError(
            f"{where}: the record has a text and {quoted(odd)}, and is neither a plain text nor a choice. To have a "
            "choice measured, give it `options` and which of them is right, in `answer` or `label`; to have the text "
            f"itself measured, leave {quoted(odd)} out."
        )
    return False


def _passage(record: dict[str, Any], question: str, where: str) -> tuple[str, str]:
    """Return which field holds the text that the question is about, and the text; both empty where there is none."""
    for name in PASSAGES:
        value = record.get(name)
        if value and (isinstance(value, str) or name == "passage"):
            text = text_of(record, name, where).strip()
            if text and text != question:
                return name, text
    return "", ""


def _unread(record: dict[str, Any], read: Collection[str]) -> tuple[str, ...]:
    texts = [record[name] for name in read if isinstance(record.get(name), str)]
    return tuple(
        name for name, value in record.items() if name not in read and value not in _NOTHING and value not in texts
    )


def _understood(drafts: Sequence[_Draft]) -> list[Item]:
    """Return the items, with an option's text in the place of the answer that names it."""
    golds = iter(gold_options([draft.options for draft in drafts if draft.options]))
    items: list[Item] = []
    for draft in drafts:
        item = draft.item
        if draft.options:
            gold, texts = next(golds), draft.options.texts
            if not texts[gold]:
                raise TikmixError(f"{draft.where}: the option that is the answer is empty.")
            item = replace(item, answer=texts[gold])
            if len(set(texts)) > 1 and all(texts):
                item = replace(item, options=texts, gold=gold)
        items.append(item)
    return items


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


def _require_options_of_all(drafts: Sequence[_Draft]) -> None:
    """Refuse a question without options among others that have some, for its answer may be a letter of one."""
    bare = next((draft for draft in drafts if draft.item.question and not draft.options), None)
    if bare is not None:
        offering = sum(draft.options is not None for draft in drafts)
        raise TikmixError(
            f"{bare.where}: the record has no options, or empty ones, and {offering} of the {len(drafts)} records of "
            "its task have some. Give it its options, or leave it out; make questions with free answers another task."
        )
