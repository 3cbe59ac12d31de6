"""Branches from elsewhere: they are taken over the run's own domains and tasks, or refused by name."""

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.sweep.evidence import Evidence, evidence_of, evidence_table, split_domains
from tikmix_pipeline.mixture.sweep.responses import Responses

DOMAINS, TARGETS = ("code", "news", "web"), ("quiz", "riddle")


def rows(domains, targets, count=4, seed=0):
    rng = np.random.default_rng(seed)
    weights_NK = rng.dirichlet(np.ones(len(domains)), size=count)
    return Responses(
        tuple(f"r{n}" for n in range(count)), domains, targets, weights_NK, rng.normal(size=(count, len(targets)))
    )


def test_a_domain_that_a_source_lacks_has_no_weight_there_and_a_task_no_loss():
    one, other = rows(("web", "code"), ("quiz",)), rows(DOMAINS, ("riddle", "quiz", "other"), seed=1)
    found = Evidence.of([one, other], DOMAINS, TARGETS)
    np.testing.assert_array_equal(
        found.weights_EK[:4], np.stack([one.weights_NK[:, 1], 0 * one.weights_NK[:, 0], one.weights_NK[:, 0]], axis=1)
    )
    np.testing.assert_array_equal(found.loss_ET[4:], other.response_NT[:, [1, 0]])
    assert found.source_E.tolist() == [1] * 4 + [2] * 4
    of_riddle = found.of_target(1)
    assert of_riddle.source_E.tolist() == [2] * 4
    assert Evidence.of([one], DOMAINS, TARGETS).of_target(1) is None
    assert Evidence.of([], DOMAINS, TARGETS) is None


def test_a_table_of_evidence_holds_what_went_in(tmp_path):
    one, other = rows(("web", "code"), ("quiz",)), rows(DOMAINS, TARGETS, seed=1)
    evidence_table({"round 0": one, "table": other}).to_parquet(tmp_path / "evidence.parquet")
    found = evidence_of(pd.read_parquet(tmp_path / "evidence.parquet"), DOMAINS, TARGETS)
    expected = Evidence.of([one, other], DOMAINS, TARGETS)
    for name in ("weights_EK", "loss_ET", "source_E"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("domains", "targets", "told"),
    [
        (("code", "wbe"), ("quiz",), "domain 'wbe'.*Did you mean 'web'.*sweep.table.split"),
        (DOMAINS, ("puzzle",), "none of this run's tasks"),
    ],
)
def test_other_domains_and_tasks_are_refused_by_name(domains, targets, told):
    with pytest.raises(TikmixError, match=told):
        Evidence.of([rows(domains, targets)], DOMAINS, TARGETS)


def test_a_split_domain_is_divided_as_its_parts_have_tokens():
    one = rows(("code", "text"), ("quiz",))
    found = split_domains(one, {"text": ["news", "web"]}, {"code": 5, "news": 10, "web": 30})
    assert found.domains == ("code", "news", "web")
    text_N = one.weights_NK[:, 1]
    np.testing.assert_allclose(found.weights_NK, np.stack([one.weights_NK[:, 0], text_N / 4, 3 * text_N / 4], axis=1))


@pytest.mark.parametrize("split", [{"txt": ["news", "web"]}, {"text": ["news", "wbe"]}])
def test_a_split_of_what_is_not_there_is_refused(split):
    with pytest.raises(TikmixError, match=r"sweep.table.split: '(txt|wbe)'.*Did you mean"):
        split_domains(rows(("code", "text"), ("quiz",)), split, {"code": 5, "news": 10, "web": 30})
