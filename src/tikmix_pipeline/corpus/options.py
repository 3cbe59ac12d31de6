"""Options and gold answers of multiple choice, in the shapes that records of benchmarks have them.

| options | their labels |
|---|---|
| `options` or `choices`, a text of lines "A. ...", "(A) ...", "A) ..." or "A: ...", or "(A) ... (B) ..." | letters |
| a list of texts | A, B, C, ... |
| `{"text": [...], "label": [...]}`, or a list of `{"text": ..., "label": ...}` | as given |
| an object of texts by label | its keys |
| columns `A`, `B`, ..., or `option_a`, `option1`, `choice_1`, ...; the last may be empty | the ends of their names |

The answer stands in `answer`, or else in a field of `ANSWERS`. It is a label ("B", "(b)", "B. the text"), a number that
counts from 0 or from 1, or the text of an option. Which of these it is holds for all records alike, so it is found by
what fits all of them; where two fit that differ, neither is taken.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from tikmix_pipeline.corpus.text import text_of
from tikmix_pipeline.errors import TikmixError

ANSWERS = ("answer", "answerKey", "answer_key", "answer_index", "answer_idx", "label", "gold")
"""Fields that may hold the answer of a record with options, the first that is there first."""

Reading = Literal["label", "from_0", "from_1", "text"]
_WORDS: dict[Reading, str] = {
    "label": "a label",
    "from_0": "a number from 0",
    "from_1": "a number from 1",
    "text": "an option's text",
}

# an option begins where a line starts with its letter: options may themselves hold newlines
_LINES = [
    (re.compile(rf"^(?={letter})", re.MULTILINE), re.compile(rf"{letter}(.*)", re.DOTALL))
    for letter in (r"([A-Z])\. ", r"\(([A-Za-z])\)\s", r"([A-Za-z])\)\s", r"([A-Z]):\s")
]
_INLINE = re.compile(r"(?:^|(?<=\s))\(([A-Za-z])\)\s")
_COLUMN = re.compile(r"(?:(?P<prefix>option|choice|opt)[ _]?)?(?P<label>[A-Za-z]|\d)", re.IGNORECASE)
_LABEL = re.compile(r"\(?\s*(\w{1,2})\s*(?:[).:](?:\s.*)?)?", re.DOTALL)
_NUMBER = re.compile(r"\d{1,3}(?:\.0)?")
_LETTER = re.compile(r"\(?[A-J][).:]?\.?")
_ASKED = [re.compile(rf"(?:^|[\s(]){letter}[).:]") for letter in "AB"]


@dataclass(frozen=True)
class Options:
    """What could be answered, and what the record gives as its answer."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    """As many as labels."""
    answer: str
    where: str
    """The place of the record, for messages."""

    def gold(self, reading: Reading) -> int | None:
        """Return which option the answer names if it is read so, from 0; None if it names none."""
        if reading == "label":
            return self._labelled()
        if reading == "text":
            return self.texts.index(self.answer) if self.texts.count(self.answer) == 1 else None
        if not _NUMBER.fullmatch(self.answer):
            return None
        number = int(float(self.answer)) - (reading == "from_1")
        return number if 0 <= number < len(self.texts) else None

    def _labelled(self) -> int | None:
        found = _LABEL.fullmatch(self.answer)
        named = [self.answer, *([found[1], found[1].upper(), found[1].lower()] if found else [])]
        return next((self.labels.index(label) for label in named if label in self.labels), None)


def options_of(record: Mapping[str, Any], where: str) -> Options | None:
    """Return the options of a record and its answer as it stands, or None if there are none.

    Raises:
        TikmixError: what should be options is nothing of the kind, or no field holds an answer.
    """
    given = next((name for name in ("options", "choices") if record.get(name)), None)
    by_label = _columns(record) if given is None else _by_label(record[given], given, where)
    if by_label is None:
        return None
    field = next((name for name in ANSWERS if record.get(name) is not None), "answer")
    answer = record.get(field)
    if isinstance(answer, float):  # as a table makes of integers where some are missing
        answer = str(int(answer)) if answer.is_integer() else str(answer)
    elif isinstance(answer, int) and not isinstance(answer, bool):
        answer = str(answer)
    text = answer if isinstance(answer, str) else text_of(record, field, where)
    return Options(tuple(by_label), tuple(by_label.values()), text.strip(), where)


def _by_label(options: Any, field: str, where: str) -> dict[str, str]:
    if isinstance(options, str):
        return _lettered(options)
    labels: Any = None
    if isinstance(options, Mapping):
        is_columns = isinstance(options.get("text"), Sequence) and isinstance(options.get("label"), Sequence)
        labels = options["label"] if is_columns else list(options)
        options = options["text"] if is_columns else list(options.values())
    elif isinstance(options, Sequence) and all(isinstance(option, Mapping) for option in options):
        labels = [option.get("label") for option in options]
        options = [option.get("text") for option in options]
    if not isinstance(options, Sequence) or not all(_is_value(option) for option in options):
        raise TikmixError(
            f"{where}: the field {field!r} holds no options. Expected a text of lines 'A. ...', a list of texts, or an "
            "object with the lists `text` and `label`."
        )
    labels = [chr(ord("A") + number) for number in range(len(options))] if labels is None else labels
    if len(labels) != len(options) or not all(map(_is_value, labels)) or len(set(map(str, labels))) != len(labels):
        raise TikmixError(f"{where}: the field {field!r} has {len(options)} options, and no label of its own for each.")
    return {str(label).strip(): str(option).strip() for label, option in zip(labels, options, strict=True)}


def _is_value(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _lettered(text: str) -> dict[str, str]:
    """Return the options of a text by their letters, in whichever way of writing them is the first to find two."""
    found: list[dict[str, str]] = []
    for start, option in _LINES:
        matches = map(option.match, start.split(text))
        found.append({match[1]: _without_stray_quote(match[2].strip()) for match in matches if match})
    pieces = _INLINE.split(text)[1:]
    found.append({letter: option.strip() for letter, option in zip(pieces[::2], pieces[1::2], strict=True)})
    return next((options for options in found if len(options) > 1), next(filter(None, found), {}))


def _without_stray_quote(text: str) -> str:
    return text[:-1].rstrip() if text.endswith('"') and text.count('"') == 1 else text


def _columns(record: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the options that stand in columns of their own, up to the first empty one."""
    by_prefix: dict[str, dict[str, str]] = {}
    for name in record:
        column = _COLUMN.fullmatch(name)
        if column is not None and (column["prefix"] or column["label"].isupper()):
            by_prefix.setdefault((column["prefix"] or "").lower(), {})[column["label"].upper()] = name
    for names in by_prefix.values():
        first = min(names)
        expected = [chr(ord(first) + number) for number in range(len(names))]
        if first in "A01" and sorted(names) == expected:
            options: dict[str, str] = {}
            for label in expected:
                if not _is_value(record[names[label]]) or not str(record[names[label]]).strip():
                    break
                options[label] = str(record[names[label]]).strip()
            if len(options) > 1:
                return options
    return None


def gold_options(items: Sequence[Options]) -> list[int]:
    """Return which option of each item its answer names, from 0, all answers read alike.

    Raises:
        TikmixError: no way of reading them fits all items, or two do that differ.
    """
    found = {reading: [item.gold(reading) for item in items] for reading in _WORDS}
    fitting = {reading: golds for reading, golds in found.items() if None not in golds}
    if "label" in fitting:  # labels that are numbers say themselves what they count
        fitting = {reading: golds for reading, golds in fitting.items() if reading in ("label", "text")}
    if not fitting:
        _refuse_none(items, found)
    (first, golds), *others = fitting.items()
    for second, other in others:
        for item, one, another in zip(items, golds, other, strict=True):
            if one != another:
                raise TikmixError(
                    f"{item.where}: the answer {item.answer!r} may be {_WORDS[first]} ({item.texts[one or 0]!r}) or "
                    f"{_WORDS[second]} ({item.texts[another or 0]!r}), and so may all answers of the task. Write "
                    "letters, such as 'A'."
                )
    return [gold for gold in golds if gold is not None]


def _refuse_none(items: Sequence[Options], found: Mapping[Reading, Sequence[int | None]]) -> NoReturn:
    reading = max(found, key=lambda reading: sum(gold is not None for gold in found[reading]))
    fits = sum(gold is not None for gold in found[reading])
    item = next(item for item, gold in zip(items, found[reading], strict=True) if gold is None)
    as_in = f" (read as {_WORDS[reading]}, as {fits} of {len(items)} answers can be)" if fits else ""
    raise TikmixError(
        f"{item.where}: the answer {item.answer!r} names none of the options {', '.join(item.labels) or '(none found)'}"
        f"{as_in}. Write options as a list or as lines 'A. ...', and the answer as 'A' or 'A. ...'; or leave the "
        "options out and give the answer as text."
    )


def require_no_bare_letters(answers: Sequence[str], questions: Sequence[str], fields: Sequence[str]) -> None:
    """Refuse a task without options whose answers are all letters, for then it is the letter that would be measured.

    Where most questions spell the options out themselves, as prompts do, the letter is what is asked for.

    Raises:
        TikmixError: it names the fields of a record.
    """
    if len(answers) < 2 or not all(map(_LETTER.fullmatch, answers)):
        return
    spelt_out = sum(all(letter.search(question) for letter in _ASKED) for question in questions)
    if 2 * spelt_out < len(questions):
        raise TikmixError(
            f"all {len(answers)} answers are letters, such as {answers[0]!r}, and no options are found in the fields "
            f"{', '.join(map(repr, fields))}. Options are expected in `options` or `choices` (a list, or lines "
            "'A. ...'), or in columns 'A', 'B', ...; where the letter itself is to be measured, in the question, as "
            "'A. ...'."
        )
