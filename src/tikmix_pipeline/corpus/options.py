"""Options of multiple choice, in the shapes that records of benchmarks have them.

| options | their labels |
|---|---|
| `options` or `choices`, a text of "A. ...", "(A) ...", "A) ..." or "A: ...", each in a line, or all in one | letters |
| a list of texts | the letters that all of them begin with, or else A, B, C, ... |
| `{"text": [...], "label": [...]}`, or a list of `{"text": ..., "label": ...}` | as given |
| an object of texts by label | its keys |
| columns `A`, `B`, ..., or `option_a`, `option1`, `choice_1`, ...; the last may be empty | the ends of their names |

The answer stands in `answer`, or else in another field of `ANSWERS`; which option it names, `corpus.gold_options`
finds.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tikmix_pipeline.corpus.lettered import are_first_letters, holds_a_second, lettered, without_letters
from tikmix_pipeline.corpus.text import text_of
from tikmix_pipeline.errors import TikmixError

ANSWERS = ("answer", "answerKey", "answer_key", "answer_index", "answer_idx", "label", "gold")
"""Fields that may hold the answer of a record with options, the first that is there first."""

FIELDS = ("options", "choices")
"""Fields that may hold all options of a record."""

_OF_ANYTHING = "label"
"""Beside an answer, it may be about something else."""

_COLUMN = re.compile(r"(?:(?P<prefix>option|choice|opt)[ _]?)?(?P<label>[A-Za-z]|\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """What could be answered, and what the record gives as its answer."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    """As many as labels."""
    answer: str
    where: str
    """The place of the record, for messages."""
    others: Mapping[str, str] = field(default_factory=dict)
    """What further fields give as the answer, by their names."""
    fields: frozenset[str] = frozenset()
    """The fields of the record that all this was read from."""


def options_of(record: Mapping[str, Any], where: str) -> Options | None:
    """Return the options of a record and its answer as it stands, or None if there are none.

    Raises:
        TikmixError: what should be options is nothing of the kind, one of them is missing, or no field holds an answer.
    """
    given = next((name for name in FIELDS if record.get(name) and not _is_empty(record[name])), None)
    columns = _columns(record, where) if given is None else {}
    if given is not None:
        by_label = _by_label(record, given, where)
    elif columns:
        by_label = _labelled(list(columns), [record[name] for name in columns.values()], [*columns.values()], where)
    else:
        return None
    first, *further = [name for name in ANSWERS if record.get(name) is not None] or ["answer"]
    answer = record.get(first)
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    text = _as_text(answer) if is_number else text_of(record, first, where)
    others = {name: _as_text(record[name]) for name in further if name != _OF_ANYTHING and _is_value(record[name])}
    fields = frozenset([*columns.values(), *([given] if given else []), first, *others])
    return Options(tuple(by_label), tuple(by_label.values()), text.strip(), where, others, fields)


def _as_text(value: Any) -> str:
    """Return a text or a number as text."""
    # a table makes floats of integers where some are missing
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _by_label(record: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    options = record[name]
    if isinstance(options, str):
        return _of_text(text_of(record, name, where), name, where)
    labels: Any = None
    if isinstance(options, Mapping):
        is_columns = isinstance(options.get("text"), Sequence) and isinstance(options.get("label"), Sequence)
        labels = options["label"] if is_columns else list(options)
        options = options["text"] if is_columns else list(options.values())
    elif isinstance(options, Sequence) and all(isinstance(option, Mapping) for option in options):
        labels = [option.get("label") for option in options]
        options = [option.get("text") for option in options]
    if not isinstance(options, Sequence) or not all(_is_value(option) or _is_missing(option) for option in options):
        raise TikmixError(
            f"{where}: the field {name!r} holds no options. Expected a text of lines 'A. ...', a list of texts, or an "
            "object with the lists `text` and `label`."
        )
    missing = next((number for number, option in enumerate(options, start=1) if _is_missing(option)), None)
    if missing is not None:
        raise TikmixError(
            f"{where}: option {missing} of the field {name!r} is missing (null or NaN). Write its text, or take it out."
        )
    if labels is not None and (
        len(labels) != len(options) or not all(map(_is_value, labels)) or len(set(map(str, labels))) != len(labels)
    ):
        raise TikmixError(f"{where}: the field {name!r} has {len(options)} options, and no label of its own for each.")
    return _labelled(labels, options, [f"{name}[{number}]" for number in range(len(options))], where)


def _of_text(text: str, name: str, where: str) -> dict[str, str]:
    found = lettered(text)
    if len(found) == 1 and any(map(holds_a_second, found.values())):
        raise TikmixError(
            f"{where}: the options in the field {name!r} stand in one line, where their letters do not tell them "
            "apart. Write them as a list, or each in a line of its own."
        )
    return found


def _labelled(labels: Sequence[Any] | None, options: Sequence[Any], names: Sequence[str], where: str) -> dict[str, str]:
    """Return options by their labels, as texts, without the letters that all of them begin with."""
    is_whole = all(option.is_integer() for option in options if isinstance(option, float))
    given = {name: (_as_text if is_whole else str)(option) for name, option in zip(names, options, strict=True)}
    texts = [text_of(given, name, where).strip() for name in names]
    letters, rests = without_letters(texts)
    if labels is None:
        is_lettered = are_first_letters(letters)
        labels = letters if is_lettered else [chr(ord("A") + number) for number in range(len(texts))]
    else:
        labels = [text_of({"label": str(label)}, "label", where).strip() for label in labels]
        is_lettered = [letter.upper() for letter in letters] == [label.upper() for label in labels]
    return dict(zip(labels, rests if is_lettered else texts, strict=True))


def _is_value(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and not _is_missing(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_empty(value: Any) -> bool:
    """Return whether a cell of a table is missing or blank."""
    return _is_missing(value) or (isinstance(value, str) and not value.strip())


def _columns(record: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return by label the names of the columns that hold an option each, up to the last that is not empty."""
    by_prefix: dict[str, dict[str, str]] = {}
    for name in record:
        column = _COLUMN.fullmatch(name)
        if column is not None and (column["prefix"] or column["label"].isupper()):
            by_prefix.setdefault((column["prefix"] or "").lower(), {})[column["label"].upper()] = name
    for names in by_prefix.values():
        first = min(names)
        labels = [chr(ord(first) + number) for number in range(len(names))]
        if first not in "A01" or sorted(names) != labels:
            continue
        while labels and _is_empty(record[names[labels[-1]]]):
            labels.pop()
        columns = {label: names[label] for label in labels}
        if len(columns) > 1 and any(_is_value(record[name]) for name in columns.values()):
            _require_cells(record, list(columns.values()), where)
            return columns
    return {}


def _require_cells(record: Mapping[str, Any], columns: Sequence[str], where: str) -> None:
    for name in columns:
        if _is_empty(record[name]):
            raise TikmixError(
                f"{where}: the option in the column {name!r} is empty, and the one in {columns[-1]!r} is not. Write "
                "its text: some readers of tables take a word such as None or NA for an empty cell."
            )
        if not _is_value(record[name]):
            raise TikmixError(
                f"{where}: the column {name!r} holds {type(record[name]).__name__}, expected an option, a text."
            )
