import numpy as np
import pytest
import torch
from influence_oracle import dense_kfac, flatten, mean_gradient_vector, random_batches, tiny_model

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.identity import IdentityCurvature
from tikmix_pipeline.influence.curvature.kfac import fit_kfac
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.influence.group import measure_group_influence
from tikmix_pipeline.lm.loss import summed_loss

DOMAINS = {name: random_batches(10 + i, batches=2, sequences=3, loss="all") for i, name in enumerate(["web", "code"])}
TASKS = {name: random_batches(20 + i) for i, name in enumerate(["arc", "boolq", "piqa"])}
MODELS = [("llama", False), ("llama", True), ("qwen2", False), ("gpt2", True)]


def mean_loss(model: torch.nn.Module, batches: list[TokenBatch]) -> float:
    sums, counts = zip(*(summed_loss(model, batch) for batch in batches), strict=True)
    return float(sum(sums).item() / sum(counts))


@pytest.mark.parametrize(("kind", "tied"), MODELS)
def test_influence_equals_the_dense_oracle(kind, tied):
    model, fit = tiny_model(kind, tied=tied), random_batches(30)
    curvature = fit_kfac(model, fit, damping=0.1, seed=3)
    measured = measure_group_influence(model, DOMAINS, TASKS, curvature, micro_batches=3)
    matrix, dampings = dense_kfac(model, fit, seed=3, damping=0.1)
    gradients_T = np.stack([mean_gradient_vector(model, batches) for batches in TASKS.values()])
    gradients_K = np.stack([mean_gradient_vector(model, batches) for batches in DOMAINS.values()])
    expected = gradients_T @ np.linalg.solve(matrix + np.diag(dampings), gradients_K.T)
    np.testing.assert_allclose(measured.influence_TK, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert measured.tasks == ("arc", "boolq", "piqa")
    assert measured.domains == ("web", "code")
    assert measured.curvature is curvature.report


@pytest.mark.parametrize(("kind", "tied"), MODELS)
def test_identity_gives_the_dot_product_of_plain_gradients(kind, tied):
    model = tiny_model(kind, tied=tied)
    measured = measure_group_influence(model, DOMAINS, TASKS, IdentityCurvature(model), micro_batches=2)
    for t, task in enumerate(TASKS.values()):
        for k, domain in enumerate(DOMAINS.values()):
            sums = []
            for batches in (task, domain):
                model.zero_grad()
                for batch in batches:
                    summed_loss(model, batch)[0].backward()
                count = sum(batch.loss_tokens for batch in batches)
                sums.append(torch.cat([p.grad.flatten() for p in model.parameters()]) / count)
            assert measured.influence_TK[t, k] == pytest.approx((sums[0] @ sums[1]).item(), rel=1e-9)


def test_a_step_on_a_domain_lowers_the_task_loss_by_the_influence():
    """To first order: f_t(θ − ηg_j) − f_t(θ) = −η S[t, j] with C = I. This is the sign and the scale of S."""
    rate = 1e-6
    for k, domain in enumerate(DOMAINS.values()):
        model = tiny_model("gpt2")
        measured = measure_group_influence(model, DOMAINS, TASKS, IdentityCurvature(model), micro_batches=2)
        gradient = mean_gradient(model, domain, of="domain").gradient
        before = [mean_loss(model, batches) for batches in TASKS.values()]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.sub_(rate * gradient[name])
        for t, batches in enumerate(TASKS.values()):
            assert mean_loss(model, batches) - before[t] == pytest.approx(-rate * measured.influence_TK[t, k], rel=1e-4)


def test_influence_of_a_union_is_the_size_weighted_mean():
    model = tiny_model("llama")
    curvature = fit_kfac(model, random_batches(30), damping=0.1, seed=3)
    domains = {"web": DOMAINS["web"], "code": DOMAINS["code"][:1], "both": [*DOMAINS["web"], *DOMAINS["code"][:1]]}
    measured = measure_group_influence(model, domains, TASKS, curvature, micro_batches=2)
    tokens = measured.domain_tokens_KL.sum(axis=1)
    mixed = measured.influence_TK[:, :2] @ (tokens[:2] / tokens[2])
    np.testing.assert_allclose(mixed, measured.influence_TK[:, 2], rtol=1e-9)


def test_influence_does_not_depend_on_batches_parts_order_or_padding():
    model = tiny_model("llama")
    curvature = fit_kfac(model, random_batches(30), damping=0.1, seed=3)

    def measure(domains, tasks, micro_batches=2):
        return measure_group_influence(model, domains, tasks, curvature, micro_batches=micro_batches).influence_TK

    reference = measure(DOMAINS, TASKS)
    backwards = {name: DOMAINS[name] for name in reversed(DOMAINS)}
    np.testing.assert_allclose(measure(backwards, TASKS)[:, ::-1], reference, rtol=1e-9)
    np.testing.assert_allclose(measure(DOMAINS, TASKS, micro_batches=5), reference, rtol=1e-9)
    singles = {
        name: [TokenBatch(b.tokens_BS[[row]], b.loss_BS[[row]]) for b in batches for row in range(len(b))]
        for name, batches in TASKS.items()
    }
    np.testing.assert_allclose(measure(DOMAINS, singles), reference, rtol=1e-9)
    padded = {
        name: [TokenBatch(np.pad(b.tokens_BS, ((0, 0), (0, 4))), np.pad(b.loss_BS, ((0, 0), (0, 4)))) for b in batches]
        for name, batches in TASKS.items()
    }
    np.testing.assert_allclose(measure(DOMAINS, padded), reference, rtol=1e-9)


def test_influence_of_domains_on_themselves_is_symmetric_and_positive():
    model = tiny_model("llama")
    curvature = fit_kfac(model, random_batches(30), damping=0.1, seed=3)
    measured = measure_group_influence(model, DOMAINS, DOMAINS, curvature, micro_batches=2)
    np.testing.assert_allclose(measured.influence_TK, measured.influence_TK.T, rtol=1e-9)
    assert (np.linalg.eigvalsh(measured.influence_TK) > 0).all()


def test_products_are_kept_by_part_with_their_tokens_and_losses():
    model = tiny_model("llama")
    measured = measure_group_influence(model, DOMAINS, TASKS, IdentityCurvature(model), micro_batches=3)
    assert measured.products_TMKL.shape == (3, 3, 2, 3)
    assert measured.task_tokens_TM.sum(1).tolist() == [sum(b.loss_tokens for b in bs) for bs in TASKS.values()]
    assert measured.domain_tokens_KL.sum(1).tolist() == [sum(b.loss_tokens for b in bs) for bs in DOMAINS.values()]
    assert measured.task_loss_T == pytest.approx([mean_loss(model, batches) for batches in TASKS.values()])
    assert measured.domain_loss_K == pytest.approx([mean_loss(model, batches) for batches in DOMAINS.values()])
    assert (measured.stderr_TK > 0).all()


def test_error_shrinks_with_more_data_of_both_sides():
    model = tiny_model("llama")

    def error(sequences: int) -> float:
        domains = {"web": random_batches(40, batches=1, sequences=sequences, loss="all")}
        tasks = {"arc": random_batches(41, batches=1, sequences=sequences)}
        measured = measure_group_influence(model, domains, tasks, IdentityCurvature(model), micro_batches=8)
        return float(measured.stderr_TK[0, 0])

    assert error(256) < 0.5 * error(16)


def test_model_is_left_as_it_was():
    model = tiny_model("gpt2").train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    measure_group_influence(model, DOMAINS, TASKS, IdentityCurvature(model), micro_batches=2)
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all((values == before[name]).all() for name, values in model.state_dict().items())


def test_float32_weights_agree_with_float64():
    double = tiny_model("llama")
    single = tiny_model("llama").float()
    results = [
        measure_group_influence(
            model, DOMAINS, TASKS, fit_kfac(model, random_batches(30), damping=0.1, seed=3), micro_batches=2
        ).influence_TK
        for model in (double, single)
    ]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-3, atol=1e-3 * np.abs(results[0]).max())


@pytest.mark.parametrize(
    ("domains", "tasks", "parts", "message"),
    [
        ({}, TASKS, 2, "no domain to measure"),
        (DOMAINS, {}, 2, "no task to measure"),
        (DOMAINS, TASKS, 1, "influence.micro_batches must be at least 2"),
        (DOMAINS, TASKS | {"tiny": random_batches(1, batches=1)}, 4, "task 'tiny' has 3 sequences with loss"),
        (DOMAINS | {"none": []}, TASKS, 2, "domain 'none' has 0 sequences with loss"),
    ],
)
def test_unusable_sets_are_named_before_any_compute(domains, tasks, parts, message):
    with pytest.raises(TikmixError, match=message):
        measure_group_influence(None, domains, tasks, None, micro_batches=parts)


def test_diverged_model_names_the_set():
    model = tiny_model("llama")
    curvature = IdentityCurvature(model)
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(TikmixError, match="gradient of the task 'arc' is not finite"):
        measure_group_influence(model, DOMAINS, TASKS, curvature, micro_batches=2)


def test_identity_returns_the_gradient():
    model = tiny_model("llama")
    gradient = mean_gradient(model, DOMAINS["web"], of="domain").gradient
    curvature = IdentityCurvature(model)
    assert (flatten(curvature.precondition(gradient)) == flatten(gradient)).all()
    assert curvature.report.coverage() == {"identity": 1.0}
