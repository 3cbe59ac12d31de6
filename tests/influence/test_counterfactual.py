"""Counterfactual mixtures, what is scored after them, and the gains that come out."""

import copy

import numpy as np
import pytest
import torch
from group_examples import DOMAINS, TASKS, collected
from influence_oracle import random_batches, tiny_model, train_steps

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import TaskItems
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.agreement import BASELINE, agreement, measured_gains, raised
from tikmix_pipeline.influence.counterfactual import (
    candidate_influences,
    counterfactual_mixtures,
    loss_rows,
    prediction_rows,
    scored_texts,
)
from tikmix_pipeline.influence.curvature.eigenblock import horizon
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.influence.target_samples import target_samples
from tikmix_pipeline.lm.branch_pool import Branch, BranchResult, Failure
from tikmix_pipeline.lm.evaluation import TextLoss
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters
from tikmix_pipeline.parameters.validation import Candidate

# axes: R replicates, T tasks, K domains, D parameters

WEIGHTS = {"code": 0.5, "prose": 0.3, "verse": 0.2}


def test_each_branch_raises_one_share_and_scales_the_others():
    mixtures = counterfactual_mixtures(WEIGHTS, 0.1)
    assert list(mixtures) == [BASELINE, "+code", "+prose", "+verse"]
    assert mixtures[BASELINE] == WEIGHTS
    assert mixtures["+prose"] == pytest.approx({"code": 0.45, "prose": 0.37, "verse": 0.18})
    for mixture in mixtures.values():
        assert sum(mixture.values()) == pytest.approx(1, abs=1e-12)


def test_domain_may_be_called_baseline():
    assert len(counterfactual_mixtures({"baseline": 0.5, "code": 0.5}, 0.1)) == 3


def first_order_effects(influence_TK: np.ndarray, weights_K: np.ndarray, step: float) -> np.ndarray:
    return step * (influence_TK - (influence_TK @ weights_K)[:, None])


def test_gains_on_a_quadratic_model_are_what_the_horizon_filter_predicts():
    """Domains share one curvature and tasks are linear, so that first order and gradient flow are exact."""
    generator = np.random.default_rng(0)
    tasks, domains, size, rate, steps, step = 3, 6, 8, 1e-3, 2000, 0.1
    eigenvalues_D = 10.0 ** generator.uniform(-2, 1, size)
    optimum_KD, task_TD = generator.normal(size=(domains, size)), generator.normal(size=(tasks, size))
    start_D, weights = generator.normal(size=size), dict(zip("abcdef", generator.dirichlet(np.ones(6)), strict=True))

    def losses_after(mixture: dict[str, float]) -> np.ndarray:
        theta_D = start_D.copy()
        for _ in range(steps):
            theta_D -= rate * eigenvalues_D * (theta_D - np.array(list(mixture.values())) @ optimum_KD)
        return task_TD @ theta_D

    losses = {
        (0, name, str(task)): float(loss)
        for name, mixture in counterfactual_mixtures(weights, step).items()
        for task, loss in enumerate(losses_after(mixture))
    }
    gains_RTK = measured_gains(losses, tasks=["0", "1", "2"], domains=list(weights))
    filter_D = horizon(torch.from_numpy(eigenvalues_D), 1 / (rate * steps)).numpy()
    gradient_KD = eigenvalues_D * (start_D - optimum_KD)
    influence_TK = (task_TD * filter_D) @ gradient_KD.T
    predicted_TK = first_order_effects(influence_TK, np.array(list(weights.values())), step)
    np.testing.assert_allclose(gains_RTK[0], predicted_TK, rtol=0.01, atol=1e-4)
    found = agreement(gains_RTK, predicted_TK).mean
    assert found.pearson == pytest.approx(1, abs=1e-4)
    assert found.slope == pytest.approx(1, abs=0.01)


def losses_of(replicate: int, baseline: float, **others: float) -> dict[tuple[int, str, str], float]:
    branches = {BASELINE: baseline, **{raised(domain): loss for domain, loss in others.items()}}
    return {(replicate, name, "quiz"): loss for name, loss in branches.items()}


def test_gain_is_against_the_baseline_of_the_same_replicate():
    losses = losses_of(0, 3.0, code=2.5, prose=3.25) | losses_of(1, 2.0, code=1.75, prose=2.5)
    gains_RTK = measured_gains(losses, tasks=["quiz"], domains=["prose", "code"])
    assert gains_RTK.tolist() == [[[-0.25, 0.5]], [[-0.5, 0.25]]]


def test_failed_branches_leave_gaps_and_a_failed_baseline_its_whole_replicate():
    losses = losses_of(0, 3.0, code=2.5, prose=3.25, verse=3.0) | losses_of(1, 2.0, code=1.75, verse=2.0)
    del losses[0, BASELINE, "quiz"]
    gains_RTK = measured_gains(losses, tasks=["quiz"], domains=["code", "prose", "verse"])
    np.testing.assert_array_equal(gains_RTK, [[[np.nan] * 3], [[0.25, np.nan, 0]]])


def test_too_few_branches_are_refused():
    with pytest.raises(TikmixError, match="Too few branches came through"):
        measured_gains(losses_of(0, 3.0, code=2.5), tasks=["quiz"], domains=["code", "prose"])


def test_rows_say_loss_per_token_and_leave_failures_out():
    losses = {"query/quiz": TextLoss(6.0, 4), "evaluation/quiz": TextLoss(3.0, 2)}
    results = [
        BranchResult(Branch("+code", WEIGHTS, 1), losses),
        BranchResult(Branch("+prose", WEIGHTS, 1), {}, Failure("diverged", "nan")),
    ]
    query, evaluation = loss_rows(results)
    assert query == {
        "replicate": 1,
        "branch": "+code",
        "task": "quiz",
        "half": "query",
        "loss": 1.5,
        "nats": 6.0,
        "tokens": 4,
    }
    assert (evaluation["half"], evaluation["loss"]) == ("evaluation", 1.5)


def test_both_halves_of_every_task_are_scored_as_influence_scores_them(token_shards: TokenShards):
    items = TaskItems.open(token_shards.tasks_file)
    for loss, carries in (("answer", lambda i: len(i.answer_ids)), ("text", lambda i: None)):
        texts = scored_texts(token_shards, InfluenceParameters(task_loss=loss), items=5, context=64)
        assert set(texts) == {f"{half}/{task}" for half in ("query", "evaluation") for task in ("recall", "rhyme")}
        assert all(sum(len(batch) for batch in batches) == 5 for batches in texts.values())
        if loss == "answer":
            expected = sum(carries(item) for item in items.items("rhyme", "evaluation", 5))
            assert sum(batch.loss_tokens for batch in texts["evaluation/rhyme"]) == expected


def test_heldout_targets_are_judged_by_windows_that_influence_did_not_see(token_shards: TokenShards):
    parameters = InfluenceParameters(targets="heldout", tokens=64, micro_batches=2)
    texts = scored_texts(token_shards, parameters, items=3, context=16)
    measured = target_samples(token_shards, parameters, context=16)
    assert set(texts) == {f"{half}/{name}" for half in ("query", "evaluation") for name in measured}

    def rows(batches) -> set[bytes]:
        return {row.tobytes() for batch in batches for row in batch.tokens_BS}

    for name, batches in measured.items():
        assert len(rows(texts[f"query/{name}"])) == 3
        assert rows(texts[f"query/{name}"]) < rows(batches)
        assert len(rows(texts[f"evaluation/{name}"])) == 3
        assert not rows(texts[f"evaluation/{name}"]) & rows(batches)


def test_heldout_slice_without_another_window_is_refused_where_that_is_to_be_scored(token_shards: TokenShards):
    parameters = InfluenceParameters(targets="all", tokens=100_000, micro_batches=2)
    with pytest.raises(TikmixError, match=r"Lower influence\.tokens"):
        scored_texts(token_shards, parameters, items=None, context=16)
    texts = scored_texts(token_shards, parameters, items=None, context=16, halves=("query",))
    assert {name.partition("/")[0] for name in texts} == {"query"}


MIXTURE = {"web": 0.7, "code": 0.3}
INFLUENCE = InfluenceParameters()


def fitted(model: torch.nn.Module, kind: str, groups: list[str]) -> Factors:
    return fit_factors(model, random_batches(30), kind=kind, fisher="empirical", seed=3, groups=groups)


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
