from functools import cache

import numpy as np
import pytest
import torch
from curvature_fits import block_of, eigenvectors
from group_examples import CURVATURES, DOMAINS, MODELS, TASKS, Batches, collected, curvature_of
from influence_oracle import apply_function, dense_blocks, mean_gradient_vector, random_batches, tiny_model

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.influence.group import GroupInfluence, group_influence, measure_group_influence
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.lm.loss import summed_loss

FUNCTIONS = {
    "damped": lambda values, scale: 1 / (values + scale),
    "horizon": lambda values, scale: np.where(
        values > 0, -np.expm1(-values / scale) / np.where(values > 0, values, 1), 1 / scale
    ),
}


def measure(
    model: torch.nn.Module,
    curvature: Curvature,
    domains: Batches = DOMAINS,
    tasks: Batches = TASKS,
    *,
    micro_batches: int = 2,
    **options: object,
) -> GroupInfluence:
    return measure_group_influence(model, domains, tasks, curvature, micro_batches=micro_batches, **options)


def mean_loss(model: torch.nn.Module, batches: list[TokenBatch]) -> float:
    sums, counts = zip(*(summed_loss(model, batch) for batch in batches), strict=True)
    return float(sum(sums).item() / sum(counts))


@cache
def gradients(kind: str, tied: bool, trained: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean gradients of tasks and domains, one per row; `adam` is measured on a model that was trained."""
    model = tiny_model(kind, tied=tied)
    if trained:
        curvature_of(model, "adam")
    tasks, domains = (
        np.stack([mean_gradient_vector(model, batches) for batches in sets.values()]) for sets in (TASKS, DOMAINS)
    )
    return tasks, domains


@cache
def fisher_blocks(kind: str, tied: bool, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return dense_blocks(tiny_model(kind, tied=tied), random_batches(30), kind=name, seed=3)


def reported_blocks(model: torch.nn.Module, curvature: Curvature) -> list[tuple[np.ndarray, np.ndarray]]:
    """Blocks of C as dense matrices over `named_parameters()`, from the eigenvalues and eigenvectors they report."""
    start, index = 0, {}
    for key, parameter in model.named_parameters():
        index[key] = torch.arange(start, start + parameter.numel()).reshape(parameter.shape)
        start += parameter.numel()
    blocks = []
    for block in curvature:
        where = block.layout.gather({key: index[key][None] for key in block.names})[0].flatten().numpy()
        vectors = eigenvectors(block) if block.eigenvalues_oi.ndim == 2 else torch.eye(block.size).double()
        blocks.append((where, (vectors * block.eigenvalues_oi.flatten() @ vectors.T).numpy()))
    return blocks


@pytest.mark.parametrize(("kind", "tied"), MODELS)
@pytest.mark.parametrize("inverse", ["damped", "horizon"])
@pytest.mark.parametrize("name", CURVATURES[1:])
def test_influence_equals_the_dense_oracle(tmp_path, kind, tied, inverse, name):
    """Through the files of the store, and in pieces."""
    model = tiny_model(kind, tied=tied)
    curvature = curvature_of(model, name, inverse=inverse)
    measured = group_influence(collected(tmp_path, model), curvature, memory_megabytes=0.02)
    exact = name in ("diagonal", "kfac")
    blocks = fisher_blocks(kind, tied, name) if exact else reported_blocks(model, curvature)
    task_Tp, domain_Kp = gradients(kind, tied, trained=name == "adam")
    preconditioned = [
        apply_function(blocks, lambda values, mean: FUNCTIONS[inverse](values, 0.1 * mean), gradient)
        for gradient in domain_Kp
    ]
    expected = task_Tp @ np.stack(preconditioned).T
    np.testing.assert_allclose(measured.influence_TK, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert measured.tasks == ("arc", "boolq", "piqa")
    assert measured.domains == ("web", "code")
    assert measured.curvature == curvature.report


@pytest.mark.parametrize(("kind", "tied"), MODELS)
def test_identity_gives_the_dot_product_of_plain_gradients(kind, tied):
    model = tiny_model(kind, tied=tied)
    measured = measure(model, curvature_of(model, "identity"))
    task_Tp, domain_Kp = gradients(kind, tied)
    expected = task_Tp @ domain_Kp.T
    np.testing.assert_allclose(measured.influence_TK, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_a_step_on_a_domain_lowers_the_task_loss_by_the_influence():
    """To first order: f_t(θ − ηg_j) − f_t(θ) = −η S[t, j] with C = I. This is the sign and the scale of S."""
    rate = 1e-6
    for k, domain in enumerate(DOMAINS.values()):
        model = tiny_model("gpt2")
        measured = measure(model, curvature_of(model, "identity"))
        gradient = mean_gradient(model, domain, of="domain").gradient
        before = [mean_loss(model, batches) for batches in TASKS.values()]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.sub_(rate * gradient[name])
        for t, batches in enumerate(TASKS.values()):
            assert mean_loss(model, batches) - before[t] == pytest.approx(-rate * measured.influence_TK[t, k], rel=1e-4)


def test_moving_one_percent_of_the_tokens_changes_the_loss_by_the_effect():
    """With C = I and one small step for a chunk, scaled by its learning rate."""
    rate, reference = 1e-5, {"web": 0.7, "code": 0.3}
    model = tiny_model("gpt2")
    measured = measure(model, curvature_of(model, "identity"), reference=reference)
    gradient = {name: mean_gradient(model, batches, of=name).gradient for name, batches in DOMAINS.items()}

    def losses(mixture: dict[str, float]) -> np.ndarray:
        stepped = tiny_model("gpt2")
        with torch.no_grad():
            for name, parameter in stepped.named_parameters():
                parameter.sub_(rate * sum(mixture[domain] * gradient[domain][name] for domain in DOMAINS))
        return np.array([mean_loss(stepped, batches) for batches in TASKS.values()])

    moved = {"web": 0.99 * 0.7 + 0.01, "code": 0.99 * 0.3}
    fall = losses(reference) - losses(moved)
    np.testing.assert_allclose(fall, rate * measured.effect_TK[:, 0], rtol=1e-3)


def test_horizon_influence_is_how_far_gradient_flow_lowers_a_quadratic_loss():
    """On the quadratic model with the measured curvature, in many small steps with and without the domain's text."""
    model = tiny_model("llama")
    curvature = curvature_of(
        model, "kfac", groups=["linear"], inverse="horizon", damping_unit="horizon", damping=1.0
    )  # for the time 1
    name = "model.layers.0.mlp.up_proj.weight"
    block = block_of(curvature, name)
    task, domain = (
        mean_gradient(model, sets[key], of=key).gradient[name] for sets, key in ((TASKS, "arc"), (DOMAINS, "web"))
    )
    vectors = eigenvectors(block)
    matrix = vectors * block.eigenvalues_oi.flatten() @ vectors.T
    steps, moved = 20_000, torch.zeros(task.numel(), dtype=torch.float64)
    for _ in range(steps):  # dθ = −(g + Cθ) ds
        moved -= (domain.flatten() + matrix @ moved) / steps
    fall = -(task.flatten() @ moved).item()
    assert (task * block.precondition({name: domain[None]})[name][0]).sum().item() == pytest.approx(fall, rel=1e-3)


def test_influence_of_a_union_is_the_size_weighted_mean():
    model = tiny_model("llama")
    domains = {"web": DOMAINS["web"], "code": DOMAINS["code"][:1], "both": [*DOMAINS["web"], *DOMAINS["code"][:1]]}
    measured = measure(model, curvature_of(model), domains)
    tokens = measured.domain_tokens_KL.sum(axis=1)
    mixed = measured.influence_TK[:, :2] @ (tokens[:2] / tokens[2])
    np.testing.assert_allclose(mixed, measured.influence_TK[:, 2], rtol=1e-9)


def test_influence_does_not_depend_on_batches_chunks_order_or_padding():
    model = tiny_model("llama")
    curvature = curvature_of(model)
    reference = measure(model, curvature).influence_TK
    backwards = {name: DOMAINS[name] for name in reversed(DOMAINS)}
    np.testing.assert_allclose(measure(model, curvature, backwards).influence_TK[:, ::-1], reference, rtol=1e-9)
    np.testing.assert_allclose(measure(model, curvature, micro_batches=5).influence_TK, reference, rtol=1e-9)
    singles = {
        name: [TokenBatch(b.tokens_BS[[row]], b.loss_BS[[row]]) for b in batches for row in range(len(b))]
        for name, batches in TASKS.items()
    }
    np.testing.assert_allclose(measure(model, curvature, tasks=singles).influence_TK, reference, rtol=1e-9)
    padded = {
        name: [TokenBatch(np.pad(b.tokens_BS, ((0, 0), (0, 4))), np.pad(b.loss_BS, ((0, 0), (0, 4)))) for b in batches]
        for name, batches in TASKS.items()
    }
    np.testing.assert_allclose(measure(model, curvature, tasks=padded).influence_TK, reference, rtol=1e-9)


def test_another_curvature_needs_no_pass_through_the_model(tmp_path):
    model = tiny_model("llama")
    store = collected(tmp_path, model)
    curvatures = [curvature_of(model, damping=damping) for damping in (0.1, 1.0)]
    model.forward = None
    first, second = (group_influence(store, curvature) for curvature in curvatures)
    assert (np.abs(second.influence_TK) < np.abs(first.influence_TK)).any()
    assert (first.task_loss_T == second.task_loss_T).all()


def test_influence_of_domains_on_themselves_is_symmetric_and_positive():
    model = tiny_model("llama")
    measured = measure(model, curvature_of(model), DOMAINS, DOMAINS)
    np.testing.assert_allclose(measured.influence_TK, measured.influence_TK.T, rtol=1e-9)
    assert (np.linalg.eigvalsh(measured.influence_TK) > 0).all()


def test_products_are_kept_by_chunk_with_their_tokens_and_losses():
    model = tiny_model("llama")
    measured = measure(model, curvature_of(model, "identity"), micro_batches=3)
    assert measured.products_TMKL.shape == (3, 3, 2, 3)
    assert measured.task_tokens_TM.sum(1).tolist() == [sum(b.loss_tokens for b in bs) for bs in TASKS.values()]
    assert measured.domain_tokens_KL.sum(1).tolist() == [sum(b.loss_tokens for b in bs) for bs in DOMAINS.values()]
    assert measured.task_loss_T == pytest.approx([mean_loss(model, batches) for batches in TASKS.values()])
    assert measured.domain_loss_K == pytest.approx([mean_loss(model, batches) for batches in DOMAINS.values()])
    assert (measured.stderr_TK > 0).all()
    assert (measured.effect_stderr_TK > 0).all()


def test_effects_are_against_the_reference_within_the_domains_measured():
    model = tiny_model("llama")
    curvature = curvature_of(model, "identity")
    measured = measure(model, curvature, reference={"web": 0.2, "code": 0.2, "unmeasured": 0.6})
    np.testing.assert_allclose(measured.effect_TK, measure(model, curvature).effect_TK)
    np.testing.assert_allclose(measured.effect_TK.sum(axis=1), 0, atol=1e-12)
    with pytest.raises(TikmixError, match="no weight for code"):
        measure(model, curvature, reference={"web": 1.0})


def test_error_shrinks_with_more_data_of_both_sides():
    model = tiny_model("llama")

    def error(sequences: int) -> float:
        domains = {"web": random_batches(40, batches=1, sequences=sequences, loss="all")}
        tasks = {"arc": random_batches(41, batches=1, sequences=sequences)}
        measured = measure(model, curvature_of(model, "identity"), domains, tasks, micro_batches=8)
        return float(measured.stderr_TK[0, 0])

    assert error(256) < 0.5 * error(16)


def test_cost_of_the_products_is_what_pen_and_paper_say():
    """6 task chunks and 4 domain chunks; each task chunk is turned into the eigenbasis of every block and back."""
    model = tiny_model("llama")
    plain, fitted = curvature_of(model, "identity"), curvature_of(model, "kfac")
    products = 2 * 6 * 4 * sum(parameter.numel() for parameter in model.parameters())
    assert measure(model, plain).cost == Cost(flops=products)
    rotations = sum(
        2 * 2 * 6 * block.size * len(vectors)
        for block in fitted
        for vectors in (block.rows_oo, block.columns_ii)
        if vectors is not None
    )
    assert measure(model, fitted).cost == Cost(flops=products + rotations)
    # q, k and v share what they read, and so do gate and up
    outputs, inputs, vocabulary = (8, 4, 4, 8, 12, 12, 8), (8, 8, 8, 12), (8, 8)
    assert fitted.cost == Cost(flops=9 * sum(size**3 for size in (*outputs, *inputs, *vocabulary)))
    assert plain.cost == Cost()


def test_model_is_left_as_it_was():
    model = tiny_model("gpt2")
    curvature = curvature_of(model, "identity")
    model.train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    measure(model, curvature)
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all((values == before[name]).all() for name, values in model.state_dict().items())


def test_float32_weights_agree_with_float64():
    results = [
        measure(model, curvature_of(model)).influence_TK for model in (tiny_model("llama"), tiny_model("llama").float())
    ]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-3, atol=1e-3 * np.abs(results[0]).max())


@pytest.mark.parametrize(
    ("domains", "tasks", "chunks", "message"),
    [
        ({}, TASKS, 2, "no domain to measure"),
        (DOMAINS, {}, 2, "no task to measure"),
        (DOMAINS, TASKS, 1, "influence.micro_batches must be at least 2"),
        (DOMAINS, TASKS | {"tiny": random_batches(1, batches=1)}, 4, "task 'tiny' has 3 sequences with loss"),
        (DOMAINS | {"none": []}, TASKS, 2, "domain 'none' has 0 sequences with loss"),
    ],
)
def test_unusable_sets_are_named_before_any_compute(domains, tasks, chunks, message):
    with pytest.raises(TikmixError, match=message):
        measure_group_influence(None, domains, tasks, None, micro_batches=chunks)


def test_diverged_model_names_the_set():
    model = tiny_model("llama")
    curvature = curvature_of(model, "identity")
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(TikmixError, match="gradient of the task 'arc' is not finite"):
        measure(model, curvature)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CURVATURES)
def test_influence_on_the_gpu_is_that_on_the_cpu(name):
    results = []
    for device in ("cpu", "cuda"):
        model = tiny_model("llama").to(device)
        results.append(measure(model, curvature_of(model, name)).influence_TK)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=1e-6 * np.abs(results[0]).max())
