import logging
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from tikmix_pipeline.mixture.sweep.equal_runs import dealt_into_folds, without_copies
from tikmix_pipeline.mixture.sweep.responses import Responses

FILE = Path("metrics.csv")


def responses(weights_NK, response_NT, runs=None):
    weights_NK, response_NT = np.asarray(weights_NK, dtype=float), np.asarray(response_NT, dtype=float)
    runs = runs or tuple(f"r{n}" for n in range(len(weights_NK)))
    return Responses(tuple(runs), ("books", "code"), ("facts", "sums"), weights_NK, response_NT)


def test_a_copy_under_another_id_is_left_out_and_named(caplog):
    found = responses([[0.2, 0.8], [0.5, 0.5], [0.2, 0.8]], [[1, 2], [1, 2], [1, 2]], runs=["a", "b", "c"])
    assert without_copies(FILE, found).runs == ("a", "b")
    assert "metrics.csv: 1 of 3 runs are left out, as they are copies" in caplog.text
    assert "'c' is 'a'" in caplog.text


def test_a_replicate_and_an_equal_score_of_another_mixture_stay_without_a_word(caplog):
    caplog.set_level(logging.INFO)
    found = responses([[0.2, 0.8], [0.5, 0.5], [0.2, 0.8]], [[1, 2], [1, 2], [1, 2.5]])
    assert without_copies(FILE, found) is found
    assert not caplog.records


@pytest.mark.parametrize("seed", range(5))
def test_runs_of_one_mixture_are_held_out_together_and_every_run_once(seed):
    distinct_NK = np.random.default_rng(seed).dirichlet(np.ones(3), size=10)
    mixture_N = np.random.default_rng(seed).permutation([*range(10), 0, 0, 3, 7])
    splits = dealt_into_folds(distinct_NK[mixture_N], 5, seed)
    assert len(splits) == 5
    for learn, held_out in splits:
        assert not set(mixture_N[learn]) & set(mixture_N[held_out])
        assert sorted([*learn, *held_out]) == list(range(14))
    assert sorted(np.concatenate([held_out for _, held_out in splits])) == list(range(14))


def test_of_mixtures_that_all_differ_the_folds_are_those_of_k_fold():
    weights_NK = np.random.default_rng(0).dirichlet(np.ones(3), size=23)
    expected = KFold(4, shuffle=True, random_state=7).split(weights_NK)
    for ours, theirs in zip(dealt_into_folds(weights_NK, 4, 7), expected, strict=True):
        assert all(map(np.array_equal, ours, theirs))


def test_runs_of_one_mixture_alone_are_parted_all_the_same():
    splits = dealt_into_folds(np.full((8, 2), 0.5), 5, 0)
    assert sorted(np.concatenate([held_out for _, held_out in splits])) == list(range(8))
    assert all(len(learn) for learn, _ in splits)
