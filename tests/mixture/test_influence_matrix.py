import numpy as np
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.influence_matrix import (
    average_influence,
    check_influence,
    magnitude,
    normaliser,
    normaliser_notes,
)

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


INFLUENCE = np.array(
    [
        [0.5, 2.0, -4.0],  # helped: the paper's normaliser
        [-1.0, -2.0, -8.0],  # harmed by all
        [0.0, -3.0, -1.0],  # helped by none
        [0.0, 0.0, 0.0],  # untouched
        [1e-9, -1.0, -2.0],  # helped by less than can be measured
    ]
)
TASKS = ["helped", "harmed", "unhelped", "untouched", "hardly"]


def test_normaliser_is_the_papers_wherever_a_domain_helps():
    assert normaliser(INFLUENCE).tolist() == [2.0, 8.0, 3.0, 1.0, 2.0]
    assert magnitude(INFLUENCE).tolist() == [4.0, 8.0, 3.0, 1.0, 2.0]


def test_normaliser_never_turns_the_order_of_domains_around():
    normalised = INFLUENCE / normaliser(INFLUENCE)[:, None]
    assert np.array_equal(np.argsort(normalised, axis=1), np.argsort(INFLUENCE, axis=1))


def test_every_unusual_task_is_named_in_words():
    notes = normaliser_notes(INFLUENCE, TASKS)
    assert [note.split("'")[1] for note in notes] == ["harmed", "unhelped", "untouched", "hardly"]
    assert "influence from -8 to -1" in notes[0]
    assert "left out" in notes[2]


def test_task_that_loses_far_more_than_it_gains_is_named():
    (note,) = normaliser_notes(np.array([[0.1, -2.0]]), ["reading"])
    assert "'reading' gains at most 0.1 and loses up to 2" in note
    assert "20 times" in note


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_influence_that_is_no_number_is_refused_with_task_and_domain(value):
    influence = INFLUENCE.copy()
    influence[1, 2] = value
    with pytest.raises(TikmixError, match="domain 'web' on the task 'harmed'"):
        check_influence(influence, TASKS, ["books", "code", "web"])


def test_an_influence_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="5 tasks and 2 domains"):
        check_influence(INFLUENCE, TASKS, ["books", "code"])
