import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_predict

from tikmix_pipeline.mixture.sweep.quality import better_than_additive, judge, summary
from tikmix_pipeline.mixture.sweep.responses import Responses

INFLUENCE = np.array([[1.0, 0.0, -1.0, 0.5], [0.0, 2.0, 0.0, 1.0]])
MATCHES = {"maths": "maths"}


def table(rows, seed, noise=0.05):
    generator = np.random.default_rng(seed)
    weights_NK = generator.dirichlet(np.ones(4), size=rows)
    response_NT = -weights_NK @ INFLUENCE.T + noise * generator.normal(size=(rows, 2))
    runs = tuple(str(n) for n in range(rows))
    return Responses(runs, ("books", "code", "maths", "web"), ("maths", "facts"), weights_NK, response_NT)


def with_targets(responses, response_NT):
    return Responses(responses.runs, responses.domains, responses.targets, responses.weights_NK, response_NT)


def rows_of(quality, surrogate):
    return {row["target"]: row for row in quality.rows if row["surrogate"] == surrogate}


@pytest.fixture(scope="module")
def responses():
    return table(80, seed=0)


@pytest.fixture(scope="module")
def quality(responses):
    return judge(responses, ["ridge", "linear"], folds=4, seed=0, influence_TK=INFLUENCE, matches=MATCHES)


def test_predictions_are_those_of_a_cross_validation(quality, responses):
    folds = KFold(4, shuffle=True, random_state=0)
    expected_NT = cross_val_predict(LinearRegression(), responses.weights_NK, responses.response_NT, cv=folds)
    assert quality.predictions["linear"] == pytest.approx(expected_NT)


def test_numbers_are_those_of_the_predictions(quality, responses):
    row, predicted_N = rows_of(quality, "linear")["facts"], quality.predictions["linear"][:, 1]
    measured_N = responses.response_NT[:, 1]
    assert row["spearman"] == pytest.approx(spearmanr(predicted_N, measured_N).statistic)
    assert row["r2"] == pytest.approx(1 - np.mean((predicted_N - measured_N) ** 2) / measured_N.var())
    assert row["spearman_low"] < row["spearman"] < row["spearman_high"]
    assert (row["n"], row["verdict"], row["naive"]) == (80, "cross-validation", False)


def test_every_surrogate_and_rule_has_a_row_per_target(quality):
    names = ["ridge", "linear", "uniform distance", "matching domain", "additive influence"]
    assert [row["surrogate"] for row in quality.rows] == [name for name in names for _ in range(2)]
    assert [row["target"] for row in quality.rows] == ["maths", "facts"] * 5


def test_an_interval_meant_for_nine_in_ten_holds_as_many():
    quality = judge(table(400, seed=3, noise=0.3), ["linear"], folds=5, seed=0, matches={})
    assert [row["coverage"] for row in rows_of(quality, "linear").values()] == pytest.approx([0.9, 0.9], abs=0.03)


def test_too_few_rows_for_the_level_make_an_interval_without_end():
    quality = judge(table(9, seed=0), ["linear"], folds=3, seed=0, matches={})
    assert rows_of(quality, "linear")["maths"]["coverage"] == 1.0


def test_rules_rank_only(quality):
    additive = rows_of(quality, "additive influence")["maths"]
    assert additive["spearman"] > 0.9
    assert additive["naive"]
    assert math.isnan(additive["r2"])
    assert math.isnan(additive["coverage"])


def test_a_target_without_a_matching_domain_is_undefined_by_that_rule_only(quality):
    assert math.isnan(rows_of(quality, "matching domain")["facts"]["spearman"])
    assert not math.isnan(rows_of(quality, "matching domain")["maths"]["spearman"])
    assert not math.isnan(rows_of(quality, "linear")["facts"]["spearman"])


def test_a_constant_target_is_undefined_and_counted_as_that(responses):
    response_NT = responses.response_NT * [1.0, 0.0]
    quality = judge(with_targets(responses, response_NT), ["linear", "gp"], folds=3, seed=0, matches={})
    for kind in ("linear", "gp"):
        row = rows_of(quality, kind)["facts"]
        assert all(math.isnan(row[name]) for name in ("spearman", "spearman_low", "spearman_high", "r2", "coverage"))
    ridge = summary(quality)[0]
    assert ridge["undefined"] == 1
    assert ridge["spearman"] == rows_of(quality, "linear")["maths"]["spearman"]
    assert math.isnan(ridge["aggregate_spearman"])


def test_constants_that_differ_from_fold_to_fold_are_undefined(responses, monkeypatch):
    """The mean of the other folds is high where a fold's own is low: it would rank the rows backwards."""
    from sklearn.dummy import DummyRegressor

    from tikmix_pipeline.mixture.sweep import surrogates

    monkeypatch.setattr(surrogates, "build_surrogate", lambda *_, **__: DummyRegressor())
    quality = judge(responses, ["linear"], folds=4, seed=0, influence_TK=INFLUENCE, matches={})
    assert all(math.isnan(row["spearman"]) for row in rows_of(quality, "linear").values())
    is_better, sentence = better_than_additive(quality.rows, "linear")
    assert not is_better
    assert "the same for all mixtures" in sentence


def test_test_rows_are_judged_by_a_fit_on_all_others(responses):
    unseen = table(50, seed=1)
    quality = judge(responses, ["linear"], folds=4, seed=0, influence_TK=INFLUENCE, matches=MATCHES, test=unseen)
    fitted = LinearRegression().fit(responses.weights_NK, responses.response_NT)
    assert quality.predictions["linear"] == pytest.approx(fitted.predict(unseen.weights_NK))
    assert {(row["n"], row["verdict"]) for row in quality.rows} == {(80, "test")}
    assert 0.75 < rows_of(quality, "linear")["maths"]["coverage"] <= 1


def test_prediction_rows_name_run_surrogate_and_target(quality, responses):
    rows = quality.prediction_rows(responses)
    assert len(rows) == 80 * 2 * 2
    assert rows[81] == {
        "run": "1",
        "surrogate": "ridge",
        "target": "facts",
        "measured": responses.response_NT[1, 1],
        "predicted": quality.predictions["ridge"][1, 1],
        "n": 80,
    }


def test_the_aggregate_is_the_rank_of_the_mean_over_targets(quality, responses):
    predicted_N, measured_N = quality.predictions["linear"].mean(axis=1), responses.response_NT.mean(axis=1)
    linear = next(row for row in summary(quality) if row["surrogate"] == "linear")
    assert linear["aggregate_spearman"] == pytest.approx(spearmanr(predicted_N, measured_N).statistic)


def test_noise_on_an_additive_response_is_not_better_than_additive(quality):
    assert better_than_additive(quality.rows, "linear")[0] is False
    assert "no better than additive influence" in better_than_additive(quality.rows, "linear")[1]


def test_an_interaction_is_better_than_additive(responses):
    product_N = responses.weights_NK[:, 0] * responses.weights_NK[:, 1]
    interacting = with_targets(responses, responses.response_NT + 8 * product_N[:, None])
    quality = judge(interacting, ["gp"], folds=4, seed=0, influence_TK=INFLUENCE, matches={})
    is_better, sentence = better_than_additive(quality.rows, "gp")
    assert is_better
    assert "'gp' predicts better than additive influence: mean Spearman over 2 targets" in sentence


def test_without_influence_there_is_nothing_to_be_better_than(responses):
    quality = judge(responses, ["linear"], folds=4, seed=0, matches={})
    assert better_than_additive(quality.rows, "linear")[0] is True


def test_same_seed_gives_the_same_numbers(quality, responses):
    again = judge(responses, ["ridge", "linear"], folds=4, seed=0, influence_TK=INFLUENCE, matches=MATCHES)
    assert repr(again.rows) == repr(quality.rows)
