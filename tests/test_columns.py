import pytest

from tikmix_pipeline.columns import aligned

ROWS = [("name", "a", "bb"), ("x", "1.25", "2")]


def test_the_first_column_stands_to_the_left_and_the_others_to_the_right():
    assert aligned(ROWS) == ["name     a  bb", "x     1.25   2"]


def test_given_widths_and_separator_are_kept():
    assert aligned(ROWS, separator=" | ", widths=[5, 4, 3]) == ["name  |    a |  bb", "x     | 1.25 |   2"]


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        aligned([*ROWS, ("y",)])
