import json

import numpy as np
import pytest
from solve_examples import (
    DOMAINS,
    INFLUENCE,
    PRIOR,
    TASKS,
    WHOLE,
    additive,
    bounds_of,
    candidates,
    decide,
    direct_decision,
    grid_of,
    interacting,
    measured,
    record_of,
    true_objective,
)

from tikmix_pipeline.mixture.objective import Objective, Targets
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.sweep.design import latin_hypercube
from tikmix_pipeline.mixture.sweep.regression_data import REFERENCE, SweepObjective
from tikmix_pipeline.mixture.sweep.responses import Responses, Scale
from tikmix_pipeline.mixture.sweep.surrogates import build_surrogate
from tikmix_pipeline.parameters import OptimizeParameters, SweepParameters


@pytest.mark.parametrize("objective", ["direct", "sum"])
@pytest.mark.parametrize("response_of", [additive, interacting])
def test_search_comes_within_a_hundredth_of_the_best_of_a_fine_grid(response_of, objective):
    parameters = OptimizeParameters(method="paper", pareto=False)
    scale = Scale.of_range(response_of(candidates(parameters).weights_NK))
    decision = decide(
        response_of,
        parameters=parameters,
        sweep=SweepParameters(response="lookahead", objective=objective),
        scale=scale,
    )
    best = true_objective(response_of, scale, grid_of(WHOLE), objective).min()
    assert decision.objective <= best + 0.01 * abs(best)
    assert decision.objective == pytest.approx(
        true_objective(response_of, scale, decision.weights_K[None], objective)[0], abs=1e-9
    )


@pytest.mark.parametrize(("response_of", "noise"), [(additive, 0.05), (interacting, 0.0), (interacting, 0.05)])
def test_a_fitted_surrogate_leads_within_a_hundredth_of_the_true_optimum(response_of, noise):
    parameters = OptimizeParameters(method="paper", pareto=False)
    responses = measured(response_of, candidates(parameters).weights_NK, noise)
    surrogate = build_surrogate("gp", folds=3, seed=0).fit(responses.weights_NK, responses.response_NT)
    scale = Scale.of_range(response_of(responses.weights_NK))
    decision = decide(response_of, predict=surrogate.predict, responses=responses, scale=scale, parameters=parameters)
    best = true_objective(response_of, scale, grid_of(WHOLE)).min()
    found = true_objective(response_of, scale, decision.weights_K[None])[0]
    assert found <= best + 0.01 * abs(best)


def test_on_additive_responses_the_surrogate_decides_as_direct_does():
    direct = direct_decision()
    decision = decide(direct=record_of(direct), scale=Scale.of_normaliser(direct.normaliser_T), influence=INFLUENCE)
    assert decision.objective == pytest.approx(direct.objective, abs=1e-3)
    assert decision.weights_K == pytest.approx(direct.weights_K, abs=0.02)
    assert decision.expected_gain_T == pytest.approx(decision.additive_gain_T)
    assert decision.direct_objective == pytest.approx(direct.objective)


@pytest.mark.parametrize(("gain", "beta"), [(1.3, 1.3), ("auto", 3.0)])
def test_the_objective_is_that_of_direct_for_the_same_gains(gain, beta):
    rng = np.random.default_rng(0)
    weights_NK = rng.dirichlet(np.ones(4), size=10)
    parameters = OptimizeParameters(method="paper", uniformity=0.7, gain=gain, entropy=0.4)
    every_task = np.ones(3, dtype=bool)
    objective = SweepObjective("direct", parameters, every_task, Targets.of(TASKS, every_task, parameters))
    of_direct = Objective(INFLUENCE, 0.7, beta, 0.4)
    values = objective.aggregate(weights_NK @ INFLUENCE.T) + objective.entropy(weights_NK)
    assert values == pytest.approx([of_direct.value(weights_K) for weights_K in weights_NK])


def test_no_target_is_predicted_to_do_worse_than_under_the_prior():
    decision = decide(interacting, direct=record_of(direct_decision()))
    assert decision.kept == "surrogate"
    assert np.all(interacting(decision.weights_K[None]) <= interacting(PRIOR[None]) + 1e-8)
    free = decide(
        interacting, direct=record_of(direct_decision()), parameters=OptimizeParameters(method="paper", pareto=False)
    )
    assert free.objective <= decision.objective + 1e-6
    scale = Scale.of_range(interacting(candidates(OptimizeParameters()).weights_NK))
    grid = grid_of(WHOLE)
    grid = grid[np.all(interacting(grid) <= interacting(PRIOR[None]), axis=1)]
    best = true_objective(interacting, scale, grid).min()
    assert decision.objective <= best + 0.01 * abs(best)


def test_a_measured_reference_is_what_no_target_may_do_worse_than():
    """It was measured to do worse than predicted, so that more mixtures are allowed."""
    responses = measured(interacting, candidates(OptimizeParameters()).weights_NK[1:])
    reference_T = interacting(PRIOR[None])[0] + 0.05
    with_reference = Responses(
        (*responses.runs, REFERENCE),
        DOMAINS,
        TASKS,
        np.vstack([responses.weights_NK, PRIOR]),
        np.vstack([responses.response_NT, reference_T]),
    )
    direct = record_of(direct_decision())
    measured_too = decide(interacting, direct=direct, responses=with_reference, influence=INFLUENCE)
    predicted = decide(interacting, direct=direct, responses=responses, influence=INFLUENCE)
    assert measured_too.objective < predicted.objective
    assert np.all(measured_too.expected_gain_T >= -1e-8)
    assert measured_too.expected_gain_T == pytest.approx(reference_T - interacting(measured_too.weights_K[None])[0])


def renamed(responses, runs, response_NT):
    return Responses(runs, DOMAINS, TASKS, responses.weights_NK, response_NT)


@pytest.mark.parametrize("name", [REFERENCE, "c0000"])
def test_the_response_of_a_mixture_is_that_of_its_own_row_whatever_the_name(name):
    """The first candidate is the prior; the last is another mixture."""
    responses = measured(interacting, candidates(OptimizeParameters()).weights_NK)
    assert np.array_equal(responses.weights_NK[0], PRIOR)
    response_NT = responses.response_NT.copy()
    response_NT[0] += 0.05
    runs = (name, *responses.runs[1:-1], "c0000" if name == REFERENCE else REFERENCE)
    direct = record_of(direct_decision())
    decision = decide(interacting, direct=direct, responses=renamed(responses, runs, response_NT), influence=INFLUENCE)
    expected_T = response_NT[0] - interacting(decision.weights_K[None])[0]
    assert decision.expected_gain_T == pytest.approx(expected_T)


def test_a_run_of_a_table_called_reference_is_a_run_like_others():
    responses = measured(interacting, candidates(OptimizeParameters()).weights_NK)
    runs = (*responses.runs[:-1], REFERENCE)
    named, plain = (
        decide(interacting, responses=one, prior_K=PRIOR)
        for one in (renamed(responses, runs, responses.response_NT), responses)
    )
    assert named.to_record("table", 1) == plain.to_record("table", 1)
    assert named.expected_gain_T == pytest.approx(interacting(PRIOR[None])[0] - interacting(named.weights_K[None])[0])


def test_of_influence_the_prior_is_known_though_no_candidate_is_near_it():
    direct = direct_decision()
    design = latin_hypercube(
        direct.weights_K, count=16, low=0.95, high=1.05, bounds=bounds_of(OptimizeParameters()), seed=0
    )
    decision = decide(
        predict=lambda weights_NK: additive(np.clip(weights_NK, *design.box)),
        direct=record_of(direct),
        scale=Scale.of_normaliser(direct.normaliser_T),
        influence=INFLUENCE,
        box=design.box,
        sweep=SweepParameters(),
    )
    assert decision.expected_gain_T == pytest.approx(decision.additive_gain_T)
    assert not any("extrapolated" in note for note in decision.notes)


def test_where_the_prior_is_out_of_reach_no_target_does_worse_than_under_direct():
    """All around D's mixture the prior's facts are out of reach."""
    direct = direct_decision(OptimizeParameters(method="paper", pareto=False))
    design = latin_hypercube(
        direct.weights_K, count=16, low=0.5, high=2.0, bounds=bounds_of(OptimizeParameters()), seed=0
    )

    def predict(weights_NK):
        return np.where(np.all(weights_NK == PRIOR, axis=1), -9.0, interacting(weights_NK).T).T

    decision = decide(predict=predict, direct=record_of(direct), box=design.box)
    assert np.all(predict(decision.weights_K[None]) <= predict(direct.weights_K[None]) + 1e-8)
    assert decision.kept == "surrogate"
    assert decision.search.value < decision.direct_objective
    note = next(note for note in decision.notes if "No mixture that was searched" in note)
    assert "sweep.high" in note


def test_direct_is_kept_if_no_candidate_is_predicted_to_be_better():
    """D's mixture is the best of all, but the box around the prior does not reach it."""
    parameters = OptimizeParameters(method="paper", pareto=False)
    direct = direct_decision(parameters)
    box = np.maximum(PRIOR - 0.05, 0), PRIOR + 0.05
    decision = decide(
        direct=record_of(direct),
        parameters=parameters,
        scale=Scale.of_normaliser(direct.normaliser_T),
        influence=INFLUENCE,
        box=box,
    )
    assert decision.search.value > decision.direct_objective
    assert decision.kept == "direct"
    assert np.array_equal(decision.weights_K, direct.weights_K)
    notes = " ".join(decision.notes)
    assert "No mixture that was searched is predicted to be better than D's" in notes
    assert "D's mixture is outside what the candidates cover on" in notes


def test_a_search_that_stays_with_direct_keeps_it():
    """Nothing but D's mixture is in the box."""
    direct = direct_decision()
    decision = decide(
        interacting,
        direct=record_of(direct),
        box=(direct.weights_K, direct.weights_K),
        parameters=OptimizeParameters(method="paper", pareto=False),
    )
    assert decision.search.value == decision.direct_objective
    assert decision.kept == "direct"
    assert "No mixture that was searched" in " ".join(decision.notes)


def test_a_mixture_of_direct_that_is_predicted_to_harm_a_target_is_not_what_a_search_has_to_beat():
    """Nothing has a higher sum of gains than maths alone, but the facts suffer from it."""
    by_domain = dict(zip(DOMAINS, PRIOR.tolist(), strict=True))
    decision = decide(
        direct=DecisionRecord(
            strategy="direct",
            round=1,
            weights=dict.fromkeys(DOMAINS, 0.0) | {"maths": 1.0},
            expected_gain={},
            binding=(),
            notes=(),
            prior=by_domain,
            reference=by_domain,
        ),
        scale=Scale.of_normaliser(np.ones(3)),
        sweep=SweepParameters(response="lookahead", objective="sum"),
    )
    assert decision.search.value > decision.direct_objective
    assert decision.kept == "surrogate"
    assert np.all(decision.expected_gain_T >= -1e-8)


def test_direct_is_kept_for_a_reason_and_what_was_searched_is_reported():
    direct = direct_decision()
    decision = decide(interacting, direct=record_of(direct), keep_direct="The surrogate predicts no better.")
    report = json.loads(json.dumps(decision.to_record("lookahead", 1).to_json(), allow_nan=False))
    assert report["kept"] == "direct"
    assert report["weights"] == record_of(direct).weights == report["direct_weights"]
    assert report["searched_weights"] != report["weights"]
    assert report["searched_objective"] < report["direct_objective"] == report["objective"]
    assert report["notes"][0] == "The surrogate predicts no better."


def test_without_direct_the_search_starts_from_the_best_measured_mixture():
    decision = decide(interacting)
    report = decision.to_record("lookahead", 1).to_json()
    assert report["direct_weights"] is None
    assert report["kept"] == "surrogate"
    measured_NK = candidates(OptimizeParameters()).weights_NK
    scale = Scale.of_range(interacting(measured_NK))
    values = true_objective(interacting, scale, measured_NK)
    assert decision.search.trace[0]["best"] == pytest.approx(values.min())


def test_without_direct_a_given_prior_holds_the_search_back_and_no_prior_does_not():
    held, free = decide(interacting, prior_K=PRIOR), decide(interacting)
    assert np.array_equal(held.prior_K, PRIOR)
    assert np.all(held.expected_gain_T >= -1e-8)
    assert free.prior_K == pytest.approx(candidates(OptimizeParameters()).weights_NK.mean(axis=0))
    assert free.objective == pytest.approx(
        decide(interacting, parameters=OptimizeParameters(method="paper", pareto=False)).objective
    )
    assert any("There is no prior" in note for note in free.notes)


def test_a_search_that_finds_nothing_better_says_so():
    still = decide(
        lambda weights_NK: np.zeros((len(weights_NK), 3)), sweep=SweepParameters(response="lookahead", objective="sum")
    )
    assert any("found no mixture that is predicted to be better" in note for note in still.notes)


def test_mixtures_stay_in_the_box_of_the_candidates():
    direct = direct_decision()
    design = latin_hypercube(
        direct.weights_K, count=64, low=0.5, high=2, bounds=bounds_of(OptimizeParameters()), seed=0
    )
    decision = decide(interacting, direct=record_of(direct), box=design.box)
    assert decision.trace_table()[list(DOMAINS)].to_numpy() == pytest.approx(decision.search.centres_RK, abs=0)
    for weights_K in (decision.weights_K, *decision.search.centres_RK):
        assert np.all((weights_K >= design.box[0] - 1e-12) & (weights_K <= design.box[1] + 1e-12))
        assert weights_K.sum() == pytest.approx(1, abs=1e-12)


def test_the_edge_of_the_box_and_a_prior_outside_it_are_said():
    box = np.array([0.25, 0.2, 0.2, 0.0]), np.array([0.4, 0.4, 0.4, 0.3])
    decision = decide(sweep=SweepParameters(response="lookahead", objective="sum"), prior_K=PRIOR, box=box)
    notes = " ".join(decision.notes)
    assert "The prior is outside what the candidates cover on 'maths', 'web'" in notes
    assert "at the edge of what the candidates cover on" in notes


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_model_of_the_objective_decides_without_the_targets(shape):
    parameters = OptimizeParameters(method="paper", pareto=False)
    responses = measured(interacting, candidates(parameters).weights_NK)
    scale = Scale.of_range(responses.response_NT)
    objective = SweepObjective.of(responses, scale, SweepParameters(), parameters)
    each = decide(interacting, parameters=parameters)
    decision = decide(
        predict=lambda weights_NK: objective.aggregate(scale.gains(interacting(weights_NK))).reshape(shape),
        responses=responses,
        scale=scale,
        sweep=SweepParameters(response="lookahead", target="aggregate"),
        prior_K=PRIOR,
    )
    assert decision.objective == pytest.approx(each.objective, abs=1e-3)
    report = json.loads(json.dumps(decision.to_record("lookahead", 1).to_json(), allow_nan=False))
    assert list(report["expected_gain"]) == ["aggregate"]
    assert report["expected_gain"]["aggregate"] > 0
    assert any("optimize.pareto holds nothing back" in note for note in report["notes"])


def test_a_target_that_nothing_changes_is_left_out():
    def still(weights_NK):
        return np.column_stack([interacting(weights_NK)[:, :2], np.full(len(weights_NK), 4.2)])

    decision = decide(still, parameters=OptimizeParameters(method="paper", pareto=False))
    assert "Nothing tells the candidates apart on 'sums'" in " ".join(decision.notes)
    assert decision.normalised_gain_T[2] == 0
    gains_T = decision.normalised_gain_T[:2]
    assert decision.terms["std"] == pytest.approx(gains_T.std())


def test_a_target_without_influence_is_left_out_as_direct_does():
    influence = np.vstack([INFLUENCE[:2], np.zeros(4)])
    responses = measured(lambda weights_NK: -weights_NK @ influence.T, candidates(OptimizeParameters()).weights_NK)
    objective = SweepObjective.of(
        responses, Scale.of_normaliser(np.ones(3)), SweepParameters(), OptimizeParameters(method="paper")
    )
    assert objective.counts_T.tolist() == [True, True, False]


def test_decisions_of_other_domains_are_refused():
    direct = record_of(direct_decision())
    direct = direct.model_copy(update={"weights": {"books": 1.0}})
    with pytest.raises(ValueError, match="D's decision is over 'books'"):
        decide(direct=direct)


def test_the_decision_is_the_same_every_time():
    first, again = (decide(interacting, direct=record_of(direct_decision())) for _ in range(2))
    assert first.to_record("lookahead", 1) == again.to_record("lookahead", 1)
