"""What a measurement is recorded as, and the expected gains of a change of mixture, with their error."""

import json

import numpy as np
import pytest
from group_examples import DOMAINS, collected, curvature_of
from influence_oracle import tiny_model

from tikmix_pipeline.influence.group import effect_with_error, group_influence
from tikmix_pipeline.influence.report import Measurement, SpreadRecord, expected_gains, measurement
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
