import numpy as np
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.averaging import average_influence

FIRST = np.array([[4.0, 2.0, -1.0], [-1.0, -2.0, 0.0]])
LAST = np.array([[0.1, 0.2, 0.0], [-0.5, 0.0, 0.25]])


def test_one_round_is_taken_exactly():
    assert np.array_equal(average_influence([FIRST / 3]), FIRST / 3)


def test_rounds_have_the_same_say_whatever_their_scale():
    expected = [[0.2 * (1.0 + 0.5) / 2, 0.2 * (0.5 + 1.0) / 2, 0.2 * -0.25 / 2], [0.5 * -1.5 / 2, -0.5 / 2, 0.5 / 4]]
    assert average_influence([FIRST, LAST]) == pytest.approx(np.array(expected))
    assert average_influence([FIRST * 1e6, LAST]) == pytest.approx(average_influence([FIRST, LAST]))


def test_memory_is_in_the_units_of_the_last_round():
    assert average_influence([FIRST, FIRST * 1e-3]) == pytest.approx(FIRST * 1e-3)


def test_a_round_in_which_nothing_helped_keeps_its_sign():
    helped, harmed = np.array([[1.0, 0.5]]), np.array([[-1.0, -2.0]])
    assert average_influence([helped, harmed]) == pytest.approx(np.array([[0.5, -0.5]]))


def test_a_round_without_influence_on_a_task_only_dilutes_it():
    assert average_influence([np.zeros((2, 3)), LAST]) == pytest.approx(LAST / 2)


def test_rounds_over_different_domains_are_refused():
    with pytest.raises(TikmixError, match=r"\[\(2, 3\), \(2, 2\)\].*tikmix\.memory"):
        average_influence([FIRST, LAST[:, :2]])


def test_a_round_weighs_as_much_as_it_is_certain():
    """Twice the relative error is a quarter of the weight, whatever the scale of a round."""
    first, last = np.array([[1.0, 0.0]]), np.array([[0.0, 10.0]])
    found = average_influence([first, last], [np.full((1, 2), 0.2), np.full((1, 2), 1.0)])
    assert found == pytest.approx(10 * np.array([[0.2, 0.8]]))


def test_rounds_of_equal_certainty_have_the_same_say():
    errors = [np.abs(one) * 0 + 0.1 * np.abs(one).max(axis=1, keepdims=True) for one in (FIRST, LAST)]
    assert average_influence([FIRST, LAST], errors) == pytest.approx(average_influence([FIRST, LAST]))


@pytest.mark.parametrize("unknown", [0.0, np.nan])
def test_without_standard_errors_rounds_have_the_same_say(unknown):
    errors = [np.full((2, 3), 0.1), np.full((2, 3), unknown)]
    assert average_influence([FIRST, LAST], errors) == pytest.approx(average_influence([FIRST, LAST]))
