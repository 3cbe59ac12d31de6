"""Expected gains of a change of mixture, with their error."""

import json

import numpy as np
import pytest

from tikmix_pipeline.influence.group import effect_with_error
from tikmix_pipeline.influence.report import SpreadRecord, expected_gains
from tikmix_pipeline.influence.standard_error import Spread, influence_with_error

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
