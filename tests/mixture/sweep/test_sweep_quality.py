import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_predict

from tikmix_pipeline.mixture.sweep.quality import (
    better_than_additive,
    explained,
    judge,
    matching_domains,
    naive_predictions,
)
from tikmix_pipeline.mixture.sweep.responses import Responses

INFLUENCE = np.array([[1.0, 0.0, -1.0, 0.5], [0.0, 2.0, 0.0, 1.0]])
MATCHES = {"maths": "maths"}
WEIGHTS = np.array([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.2, 0.8]])


def table(rows, seed, noise=0.05):
    generator = np.random.default_rng(seed)
    weights_NK = generator.dirichlet(np.ones(4), size=rows)
    response_NT = -weights_NK @ INFLUENCE.T + noise * generator.normal(size=(rows, 2))
    runs = tuple(str(n) for n in range(rows))
    return Responses(runs, ("books", "code", "maths", "web"), ("maths", "facts"), weights_NK, response_NT)


def additive(responses):
    return -responses.weights_NK @ INFLUENCE.T


def with_targets(responses, response_NT):
    return Responses(responses.runs, responses.domains, responses.targets, responses.weights_NK, response_NT)


def rows_of(quality, surrogate):
    return {row["target"]: row for row in quality.rows if row["surrogate"] == surrogate}


@pytest.fixture(scope="module")
def responses():
    return table(80, seed=0)


@pytest.fixture(scope="module")
def quality(responses):
    return judge(responses, ["ridge", "linear"], folds=4, seed=0, additive_NT=additive(responses), matches=MATCHES)


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


def test_a_constant_target_is_undefined(responses):
    response_NT = responses.response_NT * [1.0, 0.0]
    quality = judge(with_targets(responses, response_NT), ["linear", "gp"], folds=3, seed=0, matches={})
    for kind in ("linear", "gp"):
        row = rows_of(quality, kind)["facts"]
        assert all(math.isnan(row[name]) for name in ("spearman", "spearman_low", "spearman_high", "r2", "coverage"))
        assert not math.isnan(rows_of(quality, kind)["maths"]["spearman"])


def test_constants_that_differ_from_fold_to_fold_are_undefined(responses, monkeypatch):
    """The mean of the other folds is high where a fold's own is low: it would rank the rows backwards."""
    from sklearn.dummy import DummyRegressor

    from tikmix_pipeline.mixture.sweep import surrogates

    monkeypatch.setattr(surrogates, "build_surrogate", lambda *_, **__: DummyRegressor())
    quality = judge(responses, ["linear"], folds=4, seed=0, additive_NT=additive(responses), matches={})
    assert all(math.isnan(row["spearman"]) for row in rows_of(quality, "linear").values())
    is_better, sentence = better_than_additive(quality.rows, "linear")
    assert not is_better
    assert "the same for all mixtures" in sentence


def test_test_rows_are_judged_by_a_fit_on_all_others(responses):
    unseen = table(50, seed=1)
    quality = judge(responses, ["linear"], folds=4, seed=0, additive_NT=additive(unseen), matches=MATCHES, test=unseen)
    fitted = LinearRegression().fit(responses.weights_NK, responses.response_NT)
    assert quality.predictions["linear"] == pytest.approx(fitted.predict(unseen.weights_NK))
    assert {(row["n"], row["verdict"]) for row in quality.rows} == {(80, "test")}
    assert 0.75 < rows_of(quality, "linear")["maths"]["coverage"] <= 1


def test_prediction_rows_name_run_surrogate_and_target(quality, responses):
    rows = quality.prediction_rows()
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
    expected = spearmanr(predicted_N, measured_N).statistic
    for row in rows_of(quality, "linear").values():
        assert row["aggregate_spearman"] == pytest.approx(expected)


def test_where_a_target_is_undefined_so_is_the_aggregate(quality, responses):
    assert all(math.isnan(row["aggregate_spearman"]) for row in rows_of(quality, "matching domain").values())
    still = with_targets(responses, responses.response_NT * [1.0, 0.0])
    rows = judge(still, ["linear"], folds=3, seed=0, additive_NT=additive(responses), matches={}).rows
    assert all(math.isnan(row["aggregate_spearman"]) for row in rows)


def test_every_fold_has_two_rows_where_there_are_enough(monkeypatch):
    from tikmix_pipeline.mixture.sweep import surrogates

    fitted, inner = [], []
    fit = surrogates.fitted_surrogate

    def noting(kind, rows, *, folds, seed, mean):
        fitted.append(len(rows))
        inner.append(folds)
        return fit(kind, rows, folds=folds, seed=seed, mean=mean)

    monkeypatch.setattr(surrogates, "fitted_surrogate", noting)
    judge(table(9, seed=0), ["linear"], folds=8, seed=0, matches={})
    assert sorted(fitted) == [6, 7, 7, 7]
    assert set(inner) == {4}


def test_noise_on_an_additive_response_is_not_better_than_additive(quality):
    assert better_than_additive(quality.rows, "linear")[0] is False
    assert "no better than additive influence" in better_than_additive(quality.rows, "linear")[1]


def test_an_interaction_is_better_than_additive(responses):
    product_N = responses.weights_NK[:, 0] * responses.weights_NK[:, 1]
    interacting = with_targets(responses, responses.response_NT + 8 * product_N[:, None])
    quality = judge(interacting, ["gp"], folds=4, seed=0, additive_NT=additive(responses), matches={})
    is_better, sentence = better_than_additive(quality.rows, "gp")
    assert is_better
    assert "'gp' predicts better than additive influence: mean Spearman over 2 targets" in sentence


def test_without_influence_there_is_nothing_to_be_better_than(responses):
    quality = judge(responses, ["linear"], folds=4, seed=0, matches={})
    assert better_than_additive(quality.rows, "linear")[0] is True


def test_same_seed_gives_the_same_numbers(quality, responses):
    again = judge(responses, ["ridge", "linear"], folds=4, seed=0, additive_NT=additive(responses), matches=MATCHES)
    assert repr(again.rows) == repr(quality.rows)


def test_prediction_rows_of_a_test_are_of_its_runs(responses):
    unseen = table(3, seed=1)
    rows = judge(responses, ["linear"], folds=2, seed=0, matches={}, test=unseen).prediction_rows()
    assert [row["measured"] for row in rows] == unseen.response_NT.T.ravel().tolist()


@pytest.fixture
def three_runs():
    return Responses(("0", "1", "2"), ("books", "code", "web"), ("code", "facts"), WEIGHTS, np.zeros((3, 2)))


def test_the_even_mixture_is_the_best_by_its_rule(three_runs):
    distance_NT = naive_predictions(three_runs, {}, None)["uniform distance"]
    assert distance_NT == pytest.approx(np.array([[2 / 3] * 2, [0] * 2, [14 / 15] * 2]))


def test_more_of_the_matching_domain_is_a_lower_loss_and_no_match_is_undefined(three_runs):
    matching_NT = naive_predictions(three_runs, {"code": "code"}, None)["matching domain"]
    assert matching_NT[:, 0] == pytest.approx(-np.log(WEIGHTS[:, 1] + 1e-3))
    assert np.isnan(matching_NT[:, 1]).all()


def test_what_additive_influence_predicts_is_a_rule_as_it_is(three_runs):
    additive_NT = np.array([[-1.5, 0.5], [0.0, 0.0], [1.0, 2.0]])
    assert naive_predictions(three_runs, {}, additive_NT)["additive influence"] is additive_NT


def test_without_influence_there_is_no_rule_of_it(three_runs):
    assert [*naive_predictions(three_runs, {}, None)] == ["uniform distance", "matching domain"]


@pytest.mark.parametrize(
    ("domains", "targets", "pairs"),
    [
        (["books", "code"], ["books", "sums"], {"books": "books"}),
        (
            ["train_the_pile_arxiv", "train_the_pile_pile_cc", "train_the_pile_europarl"],
            ["metric/the_pile_pile_cc_val_loss", "metric/the_pile_arxiv_val_loss"],
            {
                "metric/the_pile_pile_cc_val_loss": "train_the_pile_pile_cc",
                "metric/the_pile_arxiv_val_loss": "train_the_pile_arxiv",
            },
        ),
        (
            ["pubmed_abstracts", "pubmed_central", "web"],
            ["loss/pubmed_abstracts", "loss/pubmed_central"],
            {"loss/pubmed_abstracts": "pubmed_abstracts", "loss/pubmed_central": "pubmed_central"},
        ),
        (["archive", "arxiv"], ["arxiv loss"], {"arxiv loss": "arxiv"}),
        (["books", "code"], ["facts", "sums"], {}),
    ],
)
def test_targets_are_matched_with_the_domain_of_their_name(domains, targets, pairs):
    assert matching_domains(domains, targets) == pairs


def test_of_a_target_of_pure_noise_next_to_nothing_is_explained_and_of_a_clear_one_nearly_all(responses):
    noise_N = np.random.default_rng(1).normal(size=len(responses))
    noisy = with_targets(responses, np.column_stack([noise_N, responses.response_NT[:, 1]]))
    rows = judge(noisy, ["ridge"], folds=4, seed=0, additive_NT=additive(noisy), matches={}).rows
    known = explained(rows, "ridge")
    assert known["maths"] < 0.1
    assert known["facts"] > 0.9


def test_what_is_explained_is_from_nothing_to_all_and_nothing_where_it_is_undefined():
    r2 = {"worse": -0.3, "constant": math.nan, "half": 0.5}
    rows = [{"surrogate": "gp", "target": target, "r2": value} for target, value in r2.items()]
    rows += [{"surrogate": "linear", "target": target, "r2": 0.9} for target in r2]
    assert explained(rows, "gp") == {"worse": 0.0, "constant": 0.0, "half": 0.5}
