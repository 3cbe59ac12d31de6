"""A sweep decides by its surrogate, or by the mixtures that were trained on."""

import numpy as np
import pandas as pd
import pytest
from solve_examples import DOMAINS, INFLUENCE, TASKS, additive, candidates, direct_decision, measured, record_of

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.records import BoxRecord, SweepDesign
from tikmix_pipeline.mixture.simplex import by_name
from tikmix_pipeline.mixture.sweep.choose import best_measured, search_sweep, search_tables, table_prior
from tikmix_pipeline.mixture.sweep.quality import ADDITIVE_INFLUENCE
from tikmix_pipeline.mixture.sweep.regression_data import REFERENCE, RegressionData
from tikmix_pipeline.mixture.sweep.responses import tables_of
from tikmix_pipeline.mixture.sweep.surrogates import build_surrogate
from tikmix_pipeline.parameters import OptimizeParameters, SweepParameters, TikmixParameters

RESPONSES = measured(additive, candidates(OptimizeParameters()).weights_NK)


PREDICTED = pd.DataFrame(
    [
        {"run": run, "surrogate": "linear", "target": target, "measured": value, "predicted": value}
        for run, row in zip(RESPONSES.runs, RESPONSES.response_NT, strict=True)
        for target, value in zip(TASKS, row, strict=True)
    ]
)


def data_of(influence_TK=INFLUENCE, **sweep):
    sweep = SweepParameters.model_validate({"table": {"ratios": "r", "metrics": "m"}, **sweep})
    return sweep, RegressionData.of(
        RESPONSES, influence_TK=influence_TK, sweep=sweep, parameters=OptimizeParameters(method="paper")
    )


def surrogate():
    return build_surrogate("linear", folds=2, seed=0).fit(RESPONSES.weights_NK, RESPONSES.response_NT)


@pytest.mark.parametrize(("require_better", "kept"), [(True, "direct"), (False, "surrogate")])
def test_direct_is_kept_where_the_surrogate_ranks_no_better(require_better, kept):
    parameters = OptimizeParameters(method="paper", pareto=False)
    sweep, data = data_of(surrogate="linear", objective="sum", require_better=require_better)
    quality = pd.DataFrame(
        [
            {"surrogate": name, "target": target, "spearman": value}
            for target in TASKS
            for name, value in (("linear", 0.5), (ADDITIVE_INFLUENCE, 0.9))
        ]
    )
    box = BoxRecord(low=dict.fromkeys(DOMAINS, 0.0), high=dict.fromkeys(DOMAINS, 1.0))
    design = SweepDesign(box=box, acceptance=1.0, notes=())
    direct = record_of(direct_decision())
    found = search_sweep(surrogate(), data, design, direct, (quality, PREDICTED), parameters, sweep, seed=0)
    assert found.kept == kept
    assert ("predicts no better" in " ".join(found.notes)) == require_better


def test_over_tables_the_search_stays_within_what_the_runs_cover():
    sweep, data = data_of(None, response="table", objective="sum", surrogate="linear")
    quality = pd.DataFrame([{"surrogate": "linear", "target": target, "spearman": 1.0} for target in TASKS])
    prior, optimize = TikmixParameters(prior="uniform"), OptimizeParameters(method="paper")
    found = search_tables(surrogate(), data, (quality, PREDICTED), prior, optimize, sweep, seed=0)
    assert np.array_equal(found.prior_K, np.full(4, 0.25))
    assert np.all(found.weights_K <= RESPONSES.weights_NK.max(axis=0) + 1e-12)


def test_the_best_measured_mixture_is_that_of_the_lowest_mean_response_and_gains_over_the_reference():
    ratios, metrics = tables_of(RESPONSES)
    best = int(RESPONSES.response_NT.mean(axis=1).argmin())
    direct = record_of(direct_decision())
    found = best_measured(ratios, metrics, direct)
    assert found.weights == by_name(DOMAINS, RESPONSES.weights_NK[best])
    # the first candidate is the prior, which is the reference where nothing bounds it
    gains = RESPONSES.response_NT[0] - RESPONSES.response_NT[best]
    assert found.expected_gain == pytest.approx(by_name(TASKS, gains))
    assert (found.response, found.kept) == ("lookahead", None)
    without = best_measured(ratios.iloc[1:], metrics.iloc[1:], direct)
    assert without.expected_gain == {}
    assert REFERENCE not in without.notes[0]


def test_the_prior_of_tables_is_known_only_if_it_needs_no_token_counts():
    assert table_prior(TikmixParameters(), RESPONSES) is None
    given = {"books": 0.1, "code": 0.2, "maths": 0.3, "web": 0.4}
    assert table_prior(TikmixParameters(prior=given), RESPONSES).tolist() == [0.1, 0.2, 0.3, 0.4]
    with pytest.raises(TikmixError, match=r"tikmix\.prior gives no weight for 'web'"):
        table_prior(TikmixParameters(prior={"books": 0.1, "code": 0.2, "maths": 0.7}), RESPONSES)
