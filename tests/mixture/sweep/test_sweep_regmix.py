"""RegMix's public table: 512 mixtures to learn from, 256 to be judged on, 13 losses of a 1M model."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from tikmix_pipeline.mixture.sweep.quality import matching_domains, naive_predictions
from tikmix_pipeline.mixture.sweep.surrogates import build_surrogate
from tikmix_pipeline.mixture.sweep.tables import read_responses

TABLES = Path(__file__).parents[3].parent / "shared" / "regmix"

pytestmark = [
    pytest.mark.skipif(not TABLES.is_dir(), reason="RegMix's table is not in ../shared/regmix"),
    # at this size a second thread gains nothing, and beside other processes it costs much
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def one_thread():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def tables():
    return [
        read_responses(
            TABLES / f"{split}_mixture_1m.csv",
            TABLES / f"{split}_pile_loss_1m.csv",
            domain_prefix="train_the_pile_",
            metric_prefix="metric/the_pile_",
            metric_suffix="_val_loss",
        )
        for split in ("train", "test")
    ]


def mean_spearman(predicted_NT, measured_NT):
    return np.mean([spearmanr(*columns).statistic for columns in zip(predicted_NT.T, measured_NT.T, strict=True)])


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [("linear", 0.80, 0.86), ("ridge", 0.965, 1), ("xgboost", 0.989, 1), ("gp", 0.9935, 1), ("loglinear", 0.97, 1)],
)
def test_losses_of_unseen_mixtures_are_ranked_as_well_as_they_can_be(kind, least, most, tables):
    learn, test = tables
    surrogate = build_surrogate(kind, folds=5, seed=0).fit(learn.weights_NK, learn.response_NT)
    assert least <= mean_spearman(surrogate.predict(test.weights_NK), test.response_NT) <= most


def test_the_matching_domain_alone_ranks_much_of_it(tables):
    """Any surrogate's figure is to be read beside this one."""
    test = tables[1]
    matches = matching_domains(test.domains, test.targets)
    assert len(matches) == 13
    naive = naive_predictions(test, matches, None)["matching domain"]
    assert mean_spearman(naive, test.response_NT) == pytest.approx(0.890, abs=0.002)
