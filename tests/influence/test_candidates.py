"""Predictions of several candidates from one set of gradients."""

import copy

import numpy as np
import pytest
import torch
from group_examples import DOMAINS, TASKS, collected
from influence_oracle import random_batches, tiny_model, train_steps

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.candidates import candidate_influences, prediction_rows
from tikmix_pipeline.influence.counterfactual import counterfactual_mixtures
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters
from tikmix_pipeline.parameters.validation import Candidate

MIXTURE = {"web": 0.7, "code": 0.3}
INFLUENCE = InfluenceParameters()


def fitted(model: torch.nn.Module, kind: str, groups: list[str]) -> Factors:
    return fit_factors(model, random_batches(30), kind=kind, fisher="true", seed=3, groups=groups)


def influences(folder, model, candidates, factors=(), optimizer_state=None):
    store = collected(folder, model)
    found = candidate_influences(
        candidates,
        store,
        model,
        influence=INFLUENCE,
        factors=factors,
        optimizer_state=optimizer_state or {},
        train=TrainParameters(),
        horizon=0.5,
        mixture=MIXTURE,
    )
    return {candidate.label: influence for candidate, influence in found}


def test_plain_gradient_predicts_the_gains_of_one_step_of_descent(tmp_path):
    """To first order, a step of size η under w' instead of w lowers the loss of task t by η P[t, j]."""
    model, step, rate = tiny_model("llama"), 0.1, 1e-6
    identity = Candidate(curvature="identity")
    found = influences(tmp_path, model, [identity])[identity.label]
    gradients = {name: mean_gradient(model, batches, of=name).gradient for name, batches in DOMAINS.items()}

    def losses_after(mixture: dict[str, float]) -> dict[str, float]:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter.sub_(rate * sum(mixture[domain] * gradients[domain][name] for domain in DOMAINS))
        return {task: mean_gradient(moved, batches, of=task).loss for task, batches in TASKS.items()}

    losses = {name: losses_after(mixture) for name, mixture in counterfactual_mixtures(MIXTURE, step).items()}
    for row in prediction_rows(identity, found, step):
        gain = losses["baseline"][row["task"]] - losses[f"+{row['domain']}"][row["task"]]
        assert gain == pytest.approx(rate * row["predicted"], rel=1e-3)


def test_prediction_is_the_influence_against_the_mixture_times_the_step(tmp_path):
    candidate = Candidate(curvature="identity")
    found = influences(tmp_path, tiny_model("llama"), [candidate])[candidate.label]
    rows = list(prediction_rows(candidate, found, 0.25))
    weights_K = np.array([MIXTURE[domain] for domain in found.domains])
    expected_TK = 0.25 * (found.influence_TK - (found.influence_TK @ weights_K)[:, None])
    assert [row["predicted"] for row in rows] == pytest.approx(expected_TK.ravel().tolist())
    assert [(row["task"], row["domain"]) for row in rows[:2]] == [("arc", "web"), ("arc", "code")]
    assert all(row["predicted_stderr"] > 0 for row in rows)


def test_candidates_of_one_kind_share_a_fit_each_over_its_own_groups(tmp_path):
    """A candidate over some of the fitted groups predicts as if it had been fitted by itself."""
    model = tiny_model("llama")
    everything, linear = Candidate(), Candidate(groups=["linear"])
    both = influences(tmp_path / "both", model, [everything, linear], [fitted(model, "kfac", INFLUENCE.groups)])
    alone = influences(tmp_path / "alone", model, [linear], [fitted(model, "kfac", ["linear"])])
    np.testing.assert_allclose(both[linear.label].influence_TK, alone[linear.label].influence_TK, rtol=1e-9)
    assert not np.allclose(both[linear.label].influence_TK, both[everything.label].influence_TK)


def test_horizon_is_that_of_the_branch(tmp_path):
    model = tiny_model("llama")
    of_branch = Candidate(inverse="horizon", damping=1.0, damping_unit="horizon")
    absolute = Candidate(inverse="horizon", damping=2.0, damping_unit="absolute")
    found = influences(tmp_path, model, [of_branch, absolute], [fitted(model, "kfac", INFLUENCE.groups)])
    np.testing.assert_allclose(found[of_branch.label].influence_TK, found[absolute.label].influence_TK)


def test_adam_reads_the_optimizer_and_says_when_there_is_none(tmp_path):
    model = tiny_model("llama")
    state = train_steps(model, TrainParameters(), 2).state_tensors()
    assert influences(tmp_path, model, [Candidate(curvature="adam")], optimizer_state=state)
    with pytest.raises(TikmixError, match="needs the optimiser's state"):
        influences(tmp_path, model, [Candidate(curvature="adam")])
