import numpy as np
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.normaliser import check_influence, magnitude, normaliser, normaliser_notes

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
