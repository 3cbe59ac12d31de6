"""Which fields of a task's record are read: the question, what it is about, and what is left."""

from collections.abc import Mapping, Sequence
from typing import Any

from tikmix_pipeline.corpus.options import ANSWERS, OPTIONS, option_columns
from tikmix_pipeline.corpus.text import text_of
from tikmix_pipeline.errors import TikmixError, quoted

PASSAGES = ("passage", "context", "article", "premise", "support", "paragraph", "story")
"""Fields that may hold the text a question is about."""

_LONG_CHARACTERS = 100


def is_plain_text(record: Any) -> bool:
    """Tell whether a record has neither question nor answer."""
    return isinstance(record, dict) and not {"question", "answer"} & set(record)


def asks_for_a_choice(record: Mapping[str, Any]) -> bool:
    """Tell whether a record without a question has options for its text."""
    return "text" in record and (any(record.get(name) for name in OPTIONS) or option_columns(record) is not None)


def passage_of(record: Mapping[str, Any], where: str) -> str:
    """Return the text that a question is about; empty where there is none.

    Raises:
        TikmixError: several fields could be it.
    """
    field = _passage_field(record, where)
    return text_of(record, field, where).strip() if field else ""


def _passage_field(record: Mapping[str, Any], where: str) -> str | None:
    found = [name for name in PASSAGES if record.get(name)]
    if len(found) > 1 and "passage" not in found:
        raise TikmixError(
            f"{where}: the fields {quoted(found)} may each hold the text that the question is about. Write it as "
            "`passage`, with what is to be read of them."
        )
    return found[0] if found else None


def require_no_label(record: Mapping[str, Any], where: str) -> None:
    """Refuse a plain text with a label, which would be passed over.

    Raises:
        TikmixError: it names the field.
    """
    labels = [name for name in ANSWERS if record.get(name) is not None]
    if labels:
        raise TikmixError(
            f"{where}: the record has a text and the label {labels[0]!r}, and no options. As a task of labels, write "
            "`question` and `answer`, the answer in words; as a plain text, leave that field out."
        )


def unread_fields(record: Any, where: str) -> dict[str, bool]:
    """Return the fields of a record that hold something and are not read, and whether it is a long text."""
    if not isinstance(record, dict):
        return {}
    read = {"question", "text", *OPTIONS, *(option_columns(record) or ())} if is_plain_text(record) else {"question"}
    read |= {*OPTIONS, *(option_columns(record) or ()), _passage_field(record, where) or ""}
    read |= {next((name for name in ANSWERS if record.get(name) is not None), "answer")}
    return {
        name: isinstance(value, str) and len(value) > _LONG_CHARACTERS
        for name, value in record.items()
        if name not in read and _holds_something(value)
    }


def _holds_something(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, Sequence | Mapping) and not value)
