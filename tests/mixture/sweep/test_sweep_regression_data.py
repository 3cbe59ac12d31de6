import numpy as np
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.influence_matrix import normaliser
from tikmix_pipeline.mixture.objective import Objective
from tikmix_pipeline.mixture.sweep.quality import better_than_additive, judge
from tikmix_pipeline.mixture.sweep.regression_data import REFERENCE, RegressionData
from tikmix_pipeline.mixture.sweep.responses import Responses
from tikmix_pipeline.parameters import OptimizeParameters, SweepParameters

INFLUENCE = np.array([[1.0, 0.2, 0.1, 0.5], [0.1, 0.4, 1.0, -0.6], [0.3, 0.9, 0.6, 0.1]])
TARGETS = ("facts", "proofs", "sums")
DOMAINS = ("books", "code", "maths", "web")


def responses_of(rows, *, noise=0.0, seed=0, names=()):
    generator = np.random.default_rng(seed)
    weights_NK = generator.dirichlet(np.ones(4), size=rows)
    response_NT = -weights_NK @ INFLUENCE.T
    response_NT = response_NT + noise * response_NT.std(axis=0) * generator.normal(size=response_NT.shape)
    runs = (*names, *(f"c{n}" for n in range(rows - len(names))))
    return Responses(runs, DOMAINS, TARGETS, weights_NK, response_NT)


def data_of(responses, influence_TK=INFLUENCE, known=None, **sweep):
    sweep = SweepParameters.model_validate({"table": {"ratios": "r", "metrics": "m"}, **sweep})
    return RegressionData.of(
        responses, influence_TK=influence_TK, sweep=sweep, parameters=OptimizeParameters(method="paper"), known=known
    )


def test_additive_influence_lowers_every_target_by_what_it_says_of_each_domain():
    responses = responses_of(20)
    assert data_of(responses).additive(responses) == pytest.approx(-responses.weights_NK @ INFLUENCE.T)


def test_additive_influence_predicts_the_objective_that_direct_minimises():
    responses = responses_of(20)
    of_direct = Objective(INFLUENCE / normaliser(INFLUENCE)[:, None], 1.0, 9 / len(INFLUENCE), 0.0)
    predicted_N1 = data_of(responses, target="aggregate").additive(responses)
    assert predicted_N1.shape == (20, 1)
    assert predicted_N1[:, 0] == pytest.approx([of_direct.value(weights_K) for weights_K in responses.weights_NK])


def test_a_target_of_which_nothing_is_known_is_no_part_of_the_objective_and_one_known_in_part_counts_less():
    """As large as direct expects it to be, whatever it was measured to be: that is for what is known of it alone."""
    responses = responses_of(40)
    full = data_of(responses, response="lookahead")
    part = data_of(responses, response="lookahead", known={"facts": 0.0, "proofs": 0.25, "sums": 1.0})
    assert part.objective.counts_T.tolist() == [False, True, True]
    spread_T = part.scale.gains(responses.response_NT).std(axis=0)
    expected_T = full.scale.gains(responses.response_NT).std(axis=0)
    assert spread_T == pytest.approx(expected_T * [0.0, 0.25, 1.0])
    # D's own scale, which is of influence, stays
    of_influence = data_of(responses, response="influence", known=dict.fromkeys(TARGETS, 0.0))
    assert np.array_equal(of_influence.scale.scale_T, normaliser(INFLUENCE))


def test_without_influence_there_is_nothing_additive():
    responses = responses_of(20)
    assert data_of(responses, None, response="table").additive(responses) is None


@pytest.mark.parametrize("target", ["each", "aggregate"])
@pytest.mark.parametrize("response", ["influence", "lookahead"])
def test_noise_on_an_additive_response_lets_no_surrogate_pass_as_better(target, response):
    """The objective is not linear in the gains: what is compared has to be all of it."""
    passed = []
    for seed in range(6):
        responses = responses_of(64, noise=0.2, seed=seed)
        data = data_of(responses, target=target, response=response)
        rows = judge(
            data.responses, ["ridge"], folds=4, seed=seed, additive_NT=data.additive(data.measured), matches={}
        ).rows
        passed.append(better_than_additive(rows, "ridge")[0])
    assert passed == [False] * 6


@pytest.mark.parametrize(
    ("influence_TK", "names", "response", "expected"),
    [
        (INFLUENCE, [REFERENCE], "lookahead", r"^7 runs have .* needs 8\..*branches failed.*raise sweep\.candidates"),
        (None, [], "table", r"^7 runs have .* needs 8\. Give the tables of sweep\.table more rows"),
    ],
)
def test_too_few_runs_are_refused_with_what_to_do(influence_TK, names, response, expected):
    responses = responses_of(7 + len(names), names=names)
    with pytest.raises(TikmixError, match=expected):
        data_of(responses, influence_TK, response=response)


def test_a_run_of_a_table_may_be_called_the_reference():
    responses = responses_of(8, names=[REFERENCE])
    assert data_of(responses, None, response="table").measured.runs[0] == REFERENCE
