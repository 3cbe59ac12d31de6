import threading

import pytest

from tikmix_pipeline.read_ahead import read_ahead


def test_items_come_in_their_order():
    assert list(read_ahead(range(5))) == [0, 1, 2, 3, 4]
    assert list(read_ahead([])) == []


def test_the_next_item_is_made_while_one_is_used():
    begun = [threading.Event() for _ in range(3)]

    def items():
        for number, event in enumerate(begun):
            event.set()
            yield number

    for number in read_ahead(items()):
        if number < 2:
            assert begun[number + 1].wait(10)


def test_what_making_an_item_raises_is_raised_where_it_is_used():
    def items():
        yield 1
        raise OSError("the file is gone")

    used = []
    with pytest.raises(OSError, match="the file is gone"):
        used.extend(read_ahead(items()))


def test_items_that_nobody_wants_are_not_made():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    for number in read_ahead(items()):
        if number == 3:
            break
    assert made[-1] <= 5
