"""The gold answer of multiple choice: which option it names, in one way for all records of a task.

An answer is a label ("B", "(b)", "B. the text"), a number that counts from 0 or from 1, or the text of an option. Which
of these it is holds for all records alike, so it is found by what fits all of them; where two fit that differ, neither
is taken.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NoReturn

from tikmix_pipeline.corpus.options import Options
from tikmix_pipeline.errors import TikmixError

Reading = Literal["label", "from_0", "from_1", "text"]
_WORDS: dict[Reading, str] = {
    "label": "a label",
    "from_0": "a number from 0",
    "from_1": "a number from 1",
    "text": "an option's text",
}

_LABEL = re.compile(r"\(?\s*(\w{1,2})\s*(?:[).:](?:\s(.*))?)?", re.DOTALL)
_NUMBER = re.compile(r"\d{1,3}(?:\.0)?")
_LETTER = re.compile(r"\(?[A-J][).:]?\.?")
_ASKED = [re.compile(rf"(?:^|[\s(]){letter}[).:]") for letter in "AB"]


def gold_options(items: Sequence[Options]) -> list[int]:
    """Return which option of each item its answer names, from 0, all answers read alike.

    Raises:
        TikmixError: no way of reading them fits all items, or two do that differ; an answer's letter is that of one
            option and its text that of another; or a further field names another option.
    """
    found = _found(items, [item.answer for item in items])
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
    named = [gold for gold in golds if gold is not None]
    if first == "label":
        _require_own_texts(items, named)
    _require_agreement(items, named)
    return named


def _found(items: Sequence[Options], answers: Sequence[str]) -> dict[Reading, list[int | None]]:
    """Return in every reading which option of each item an answer names, None where it names none."""
    return {
        reading: [_named(item, answer, reading) for item, answer in zip(items, answers, strict=True)]
        for reading in _WORDS
    }


def _named(item: Options, answer: str, reading: Reading) -> int | None:
    if reading == "label":
        match = _LABEL.fullmatch(answer)
        labels = [answer, *([match[1], match[1].upper(), match[1].lower()] if match else [])]
        return next((item.labels.index(label) for label in labels if label in item.labels), None)
    if reading == "text":
        return item.texts.index(answer) if item.texts.count(answer) == 1 else None
    if not _NUMBER.fullmatch(answer):
        return None
    number = int(float(answer)) - (reading == "from_1")
    return number if 0 <= number < len(item.texts) else None


def _require_own_texts(items: Sequence[Options], golds: Sequence[int]) -> None:
    """Refuse an answer such as "B. iron" where iron is option A."""
    for item, gold in zip(items, golds, strict=True):
        match = _LABEL.fullmatch(item.answer)
        text = (match[2] or "").strip() if match else ""
        if text and text in item.texts and text != item.texts[gold]:
            raise TikmixError(
                f"{item.where}: the answer {item.answer!r} has the label of {item.texts[gold]!r} and the text of "
                f"option {item.labels[item.texts.index(text)]}. Mend the record."
            )


def _require_agreement(items: Sequence[Options], golds: Sequence[int]) -> None:
    """Refuse a further answer that names other options, in each way of reading it that fits all items that have it."""
    for field in dict.fromkeys(name for item in items for name in item.others):
        having = [(item, gold) for item, gold in zip(items, golds, strict=True) if field in item.others]
        found = _found([item for item, _ in having], [item.others[field] for item, _ in having])
        differing = [
            [(item, other) for (item, gold), other in zip(having, others, strict=True) if other != gold]
            for others in found.values()
            if None not in others
        ]
        if differing and all(differing):
            item, other = min(differing, key=len)[0]
            raise TikmixError(
                f"{item.where}: the answer is {item.answer!r}, and the field {field!r}, {item.others[field]!r}, names "
                f"another option, {item.texts[other or 0]!r}. Mend the record, or leave {field!r} out of all of them."
            )


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
