"""What a measurement is recorded as, and the expected gains of a change of mixture, with their error."""

import json

import numpy as np
import pytest
from group_examples import DOMAINS, collected, curvature_of
from influence_oracle import tiny_model

from tikmix_pipeline.influence.group import effect_with_error, group_influence
from tikmix_pipeline.influence.report import Measurement, SpreadRecord, expected_gains, influence_rows, measurement
from tikmix_pipeline.influence.standard_error import Spread, influence_with_error
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.parameters import InfluenceParameters
from tikmix_pipeline.parameters.measurement import MatrixParameters

PRODUCTS = np.random.default_rng(0).normal(size=(2, 4, 3, 4)) + np.arange(3)[:, None]
TASK_TOKENS = np.full((2, 4), 10)
DOMAIN_TOKENS = np.array([[5, 5, 10, 10]] * 3)
NAMES = {"tasks": ["piqa", "mmlu"], "domains": ["a", "b", "c"]}


def spread():
    components = {
        name: values.tolist() for name, values in vars(Spread.of(PRODUCTS, TASK_TOKENS, DOMAIN_TOKENS)).items()
    }
    record = SpreadRecord(**NAMES, **components)
    return SpreadRecord.from_json(json.loads(json.dumps(record.to_json())))


def mixture(*weights):
    return dict(zip("abc", weights, strict=True))


def test_a_gain_is_influence_times_the_change_of_weights():
    gains = expected_gains(spread(), mixture(0.5, 0.3, 0.2), mixture(0.1, 0.3, 0.6), calibration=2.0)
    influence_TK, _ = influence_with_error(PRODUCTS, TASK_TOKENS, DOMAIN_TOKENS)
    assert [gain for gain, _ in gains.values()] == pytest.approx(2.0 * influence_TK @ [-0.4, 0.0, 0.4])
    assert list(gains) == ["piqa", "mmlu"]


def test_one_percent_to_a_domain_gains_its_effect_with_its_error():
    before = np.array([0.5, 0.3, 0.2])
    effect_TK, error_TK = effect_with_error(PRODUCTS, TASK_TOKENS, DOMAIN_TOKENS, before, calibration=3.0)
    after = mixture(*(0.99 * before + 0.01 * np.eye(3)[2]))
    gains = expected_gains(spread(), mixture(*before), after, calibration=3.0)
    np.testing.assert_allclose(list(gains.values()), np.stack([effect_TK[:, 2], error_TK[:, 2]], axis=1))


def test_without_calibration_all_of_the_chunk_on_the_best_domain_gains_one_and_no_mixture_more():
    before = mixture(0.5, 0.3, 0.2)
    vertices = [expected_gains(spread(), before, mixture(*row), calibration=None) for row in np.eye(3)]
    for task in NAMES["tasks"]:
        assert max(gains[task][0] for gains in vertices) == pytest.approx(1.0)
    for weights in np.random.default_rng(1).dirichlet(np.ones(3), 100):
        gains = expected_gains(spread(), before, mixture(*weights), calibration=None)
        assert all(gain <= 1 + 1e-9 for gain, _ in gains.values())


def test_a_share_is_as_many_of_its_errors_from_zero_as_the_gain_in_nats():
    before, after = mixture(0.5, 0.3, 0.2), mixture(0.1, 0.3, 0.6)
    shares = expected_gains(spread(), before, after, calibration=None)
    gains = expected_gains(spread(), before, after, calibration=0.01)
    for (share, share_error), (gain, gain_error) in zip(shares.values(), gains.values(), strict=True):
        assert share / share_error == pytest.approx(gain / gain_error)


def test_where_the_current_mixture_is_all_of_the_best_domain_the_largest_loss_is_one():
    best = expected_gains(spread(), mixture(0.5, 0.3, 0.2), mixture(0, 0, 1), calibration=None)["piqa"][0]
    assert best == pytest.approx(1.0), "the third domain is the best of this task"
    losses = [
        expected_gains(spread(), mixture(0, 0, 1), mixture(*row), calibration=None)["piqa"][0] for row in np.eye(3)
    ]
    assert min(losses) == pytest.approx(-1.0)
    assert max(losses) == pytest.approx(0.0)


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_a_table_has_shares_always_and_nats_only_where_they_were_measured(tmp_path, is_calibrated):
    found = group_influence(collected(tmp_path), curvature_of(tiny_model("llama"), "identity"), calibration=0.5)
    rows = influence_rows(found, is_calibrated=is_calibrated)
    shape = found.effect_TK.shape
    share_TK = rows["share"].reshape(shape)
    np.testing.assert_allclose(share_TK.max(axis=1), 1.0)
    np.testing.assert_allclose(share_TK / share_TK[:, :1], found.effect_TK / found.effect_TK[:, :1])
    assert (np.isnan(rows["effect"]).all(), np.isnan(rows["effect_stderr"]).all()) == (not is_calibrated,) * 2
    if is_calibrated:
        np.testing.assert_array_equal(rows["effect"], found.effect_TK.ravel())


def test_no_change_gains_nothing_for_certain():
    gains = expected_gains(spread(), mixture(0.5, 0.3, 0.2), mixture(0.5, 0.3, 0.2), calibration=1.0)
    assert list(gains.values()) == [(0.0, 0.0)] * 2


@pytest.mark.parametrize("curvature", ["identity", "kfac"])
def test_a_measurement_is_read_back_as_it_was_written_and_an_identity_has_no_damping(tmp_path, curvature):
    found = group_influence(collected(tmp_path), curvature_of(tiny_model("llama"), curvature))
    asked = InfluenceParameters(curvature=curvature).narrowed(MatrixParameters)
    point = {"tokens": 8, "total_variation": 0.1, "total_variation_of_domains": 0.1, "rank_stability": None}
    stopping = {"reason": "cap", "curve": [point]}
    record = measurement(found, asked, horizon=1.0, stopping=stopping, cost={"gradients": Cost(3, 2.0)})
    content = json.loads(json.dumps(record.to_json()))
    assert Measurement.from_json(content).to_json() == content
    assert ("damping" in content) == ("inverse" in content) == (curvature == "kfac")
    assert content["lambda"].keys() == {"least", "largest"}
    assert content["stopping"] == stopping
    assert content["domain_tokens"].keys() == DOMAINS.keys()
    assert content["cost"] == {"tokens": 3, "flops": 2.0, "parts": {"gradients": {"tokens": 3, "flops": 2.0}}}
