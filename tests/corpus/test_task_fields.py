"""Nothing that a question is about is passed over: it is read, refused, or told."""

import logging
from typing import Any

import pytest
from corpus_examples import random_text

from tikmix_pipeline.corpus.tasks import Item, read_items
from tikmix_pipeline.errors import TikmixError


def read(**fields: Any) -> list[Item]:
    """Read two records with these fields, the texts of the second with a word more."""
    second = {
        name: f"{value} too" if isinstance(value, str) and len(value) > 9 else value for name, value in fields.items()
    }
    return read_items([("a.jsonl, line 1", fields), ("a.jsonl, line 2", second)])


@pytest.mark.parametrize("field", ["passage", "context", "article", "premise", "support"])
def test_the_text_that_a_question_is_about_is_read_under_any_of_its_names(field: str):
    items = read(question="What is it about?", answer="a house of stone", **{field: "Once there was a house of stone."})
    assert items[0].passage == "Once there was a house of stone."
    assert items[0].topic == items[0].passage


def test_two_texts_that_it_could_be_about_are_refused():
    with pytest.raises(TikmixError, match=r"line 1: the fields 'context', 'premise' may each hold the text"):
        read(
            question="What is it about?",
            answer="a house of stone",
            context="One text of two.",
            premise="The other text.",
        )


def test_a_text_with_options_is_a_question():
    item, _ = read(text="A house of stone stands.", choices=["yes", "no"], label="B")
    assert (item.question, item.answer, item.options) == ("A house of stone stands.", "no", ("yes", "no"))


@pytest.mark.parametrize("label", ["label", "gold"])
def test_a_text_with_a_label_and_no_options_is_no_plain_text(label: str):
    with pytest.raises(TikmixError, match=rf"line 1: the record has a text and the label '{label}', and no options"):
        read(text="A house of stone stands.", **{label: 1})


@pytest.mark.parametrize(("text", "level"), [("nq-17", logging.INFO), (random_text(0), logging.WARNING)])
def test_fields_that_are_not_read_are_told_and_a_long_text_with_a_warning(
    caplog: pytest.LogCaptureFixture, text: str, level: int
):
    with caplog.at_level(logging.INFO):
        read(question="What is it about?", answer="a house of stone", explanation=text, empty=None, none=[])
    (told,) = caplog.records
    assert told.levelno == level
    assert told.getMessage() == "a.jsonl: not read of its records are the fields 'explanation'"


def test_of_fields_that_are_all_read_nothing_is_said(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        read(
            question="What is it about?", answerKey="A", A="a house of stone", B="a house of wood", passage="Of houses."
        )
        read(text="A house of stone stands.")
        read(text="A house of stone stands.", option1="yes indeed, so", option2="no, not at all", answer_idx=1)
    assert not caplog.records
