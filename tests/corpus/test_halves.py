import pytest

from tikmix_pipeline.corpus.halves import split_items
from tikmix_pipeline.corpus.tasks import Item


@pytest.mark.parametrize(
    "alter", [str.upper, str.title, lambda text: text.replace(" ", "  "), lambda text: f"{text}\n"]
)
def test_a_question_written_in_another_way_stays_on_its_side(alter):
    questions = [f"caf\u00e9 number {number}?" for number in range(20)]
    decomposed = [question.replace("\u00e9", "e\u0301") for question in questions]
    items = [Item(written, "yes") for written in [*questions, *map(alter, questions), *decomposed]]
    halves = split_items(items, max_items=None, seed=0)
    numbers = [{item.question.split()[2].lower() for item in half} for half in halves.values()]
    assert not numbers[0] & numbers[1]
    assert sum(map(len, halves.values())) == 60


def test_questions_are_dealt_in_no_order_of_theirs():
    items = [Item(f"Question {number}?", "yes") for number in range(9)]
    assert split_items(items[::-1], max_items=None, seed=0) == split_items(items, max_items=None, seed=0)
