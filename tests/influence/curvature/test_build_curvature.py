import numpy as np
import pytest
import torch
from curvature_fits import DAMPED, FISHER_KINDS, GROUPS, fit, precondition, use
from influence_oracle import ToyLM, dense_kfac, random_batches, random_gradient, tiny_model, train_steps
from torch import nn

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.curvature.layers import chosen_parameters
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters

MODELS = [("llama", False), ("llama", True), ("qwen2", False), ("gpt_neox", False), ("gpt2", False), ("gpt2", True)]
BATCHES = random_batches(1)


@pytest.mark.parametrize("kind", FISHER_KINDS)
@pytest.mark.parametrize(("family", "tied"), MODELS)
def test_every_parameter_is_covered_once_by_the_blocks_reported(kind, family, tied):
    model = tiny_model(family, tied=tied)
    curvature = use(model, fit(model, BATCHES, kind))
    names = [name for block in curvature.report.blocks for name in block.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert sum(block.size for block in curvature.report.blocks) == sum(p.numel() for p in model.parameters())
    assert sum(curvature.report.coverage().values()) == pytest.approx(1)
    assert curvature.report.left_out == 0
    assert ("tied embedding and head" in curvature.report.coverage()) is (tied and kind != "diagonal")
    for block, reported in zip(curvature, curvature.report.blocks, strict=True):
        assert (block.names, block.kind, block.size) == (reported.parameters, reported.kind, reported.size)
        assert reported.mean_eigenvalue == pytest.approx(block.eigenvalues_oi.mean().item())
        assert reported.damping == block.damping_function.scale == pytest.approx(0.1 * reported.mean_eigenvalue)


@pytest.mark.parametrize(("family", "tied"), MODELS)
def test_damping_reported_is_that_of_the_dense_blocks(family, tied):
    model = tiny_model(family, tied=tied)
    report = use(model, fit(model, BATCHES)).report
    matrix, dampings = dense_kfac(model, BATCHES, seed=3, damping=0.1)
    reported = sum(block.mean_eigenvalue * block.size for block in report.blocks)
    assert reported == pytest.approx(np.trace(matrix), rel=1e-10)
    assert sum(block.damping * block.size for block in report.blocks) == pytest.approx(dampings.sum(), rel=1e-10)


def test_report_says_what_was_asked_for():
    model = tiny_model("llama")
    factors = fit(model, BATCHES, "ekfac")
    report = use(model, factors, inverse="horizon", damping=2.0, damping_unit="horizon", horizon=4.0).report
    assert (report.curvature, report.inverse, report.damping, report.damping_unit) == ("ekfac", "horizon", 2, "horizon")
    assert {block.damping for block in report.blocks} == {0.5}
    absolute = use(model, factors, damping=0.25, damping_unit="absolute").report
    assert {block.damping for block in absolute.blocks} == {0.25}


@pytest.mark.parametrize("kind", FISHER_KINDS)
@pytest.mark.parametrize("inverse", ["damped", "horizon"])
def test_large_damping_tends_to_the_plain_gradient(kind, inverse):
    model, gradient = tiny_model("llama", tied=True), random_gradient(tiny_model("llama", tied=True))
    curvature = use(model, fit(model, BATCHES, kind), damping=1e9, inverse=inverse)
    result = precondition(curvature, gradient)
    for block in curvature.report.blocks:
        for name in block.parameters:
            torch.testing.assert_close(block.damping * result[name], gradient[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FISHER_KINDS)
def test_a_long_horizon_is_the_inverse_where_there_is_curvature(kind):
    """In one layer that sees more directions than it has."""
    torch.manual_seed(0)
    model, gradient = ToyLM(nn.Linear(4, 4)).double(), {}
    factors = fit(model, random_batches(1, batches=6, loss="all"), kind, groups=("linear",))
    gradient = random_gradient(model)
    curvature = use(model, factors, damping=1e-9, damping_unit="absolute", inverse="horizon")
    result = precondition(curvature, gradient)
    for block in curvature:
        rows = {name: result[name][None] for name in block.names}
        columns = None if block.columns_ii is None else block.columns_ii
        back = block.layout.gather(rows)[0]
        if columns is not None:
            back = block.rows_oo @ ((block.rows_oo.T @ back @ columns) * block.eigenvalues_oi) @ columns.T
        else:
            back = back * block.eigenvalues_oi
        expected = block.layout.gather({name: gradient[name][None] for name in block.names})[0]
        torch.testing.assert_close(back, expected, rtol=1e-7, atol=1e-9)


def test_factors_of_all_groups_serve_fewer():
    model, gradient = tiny_model("llama"), random_gradient(tiny_model("llama"))
    factors = fit(model, BATCHES)
    fewer = use(model, factors, groups=["linear", "elementwise"])
    everything = precondition(use(model, factors), gradient)
    result = precondition(fewer, gradient)
    assert set(result) == set(chosen_parameters(model, ["linear", "elementwise"]))
    assert all((result[name] == everything[name]).all() for name in result)
    assert fewer.report.left_out == pytest.approx(2 * 88 / 680)
    assert fewer.report.groups == ("linear", "elementwise")


def build(model, factors, **parameters):
    asked = InfluenceParameters(**{"fisher": "true"} | DAMPED | parameters)
    return build_curvature(asked, model, factors=factors, optimizer_state={}, train=TrainParameters(), horizon=None)


def test_factors_that_do_not_fit_are_refused():
    model = tiny_model("llama")
    factors = fit(model, BATCHES, groups=("linear",))
    with pytest.raises(TikmixError, match=r"curvature=ekfac .*needs factors, and none were fitted"):
        build(model, None, curvature="ekfac")
    with pytest.raises(TikmixError, match=r"cannot use factors of kind kfac, fisher true over linear"):
        build(model, factors, curvature="ekfac", groups=["linear"])
    with pytest.raises(TikmixError, match=r"fisher=empirical over linear cannot use"):
        build(model, factors, curvature="kfac", fisher="empirical", groups=["linear"])
    with pytest.raises(TikmixError, match="over linear, head cannot use"):
        build(model, factors, curvature="kfac", groups=["linear", "head"])
    with pytest.raises(TikmixError, match="fitted to another model"):
        build(tiny_model("gpt2"), factors, curvature="kfac", groups=["linear"])
    assert build(model, factors, curvature="kfac", groups=["linear"])


def test_horizon_unit_without_a_horizon_is_refused_before_anything_is_decomposed():
    model = tiny_model("llama")
    factors = fit(model, BATCHES, groups=GROUPS)
    with pytest.raises(TikmixError, match=r"damping_unit=horizon"):
        build(model, factors, curvature="kfac", damping_unit="horizon")


def test_a_horizon_is_in_the_step_sizes_of_adamw_where_its_state_is_known():
    """λ = damping · mean(√v̂ + ε) / Σ learning rates, block by block."""
    model, train = tiny_model("llama"), TrainParameters()
    state = train_steps(model, train, 3).state_tensors()
    parameters = InfluenceParameters(curvature="kfac", inverse="horizon", damping=0.5, damping_unit="horizon")
    factors = fit_factors(
        model, random_batches(1), kind="kfac", fisher="empirical", seed=0, groups=InfluenceParameters().groups
    )
    with_state = build_curvature(parameters, model, factors=factors, optimizer_state=state, train=train, horizon=0.2)
    without = build_curvature(parameters, model, factors=factors, optimizer_state={}, train=train, horizon=0.2)
    for known, unknown in zip(with_state, without, strict=True):
        roots = [
            torch.sqrt(state[f"{name}/exp_avg_sq"] / (1 - train.beta2**3)).flatten() + train.epsilon
            for name in known.names
        ]
        assert known.damping_function.scale == pytest.approx(0.5 * torch.cat(roots).mean().item() / 0.2, rel=1e-6)
        assert unknown.damping_function.scale == pytest.approx(0.5 / 0.2)


def identity(model, **parameters) -> Curvature:
    asked = InfluenceParameters(curvature="identity", **parameters)
    return build_curvature(asked, model, factors=None, optimizer_state={}, train=TrainParameters(), horizon=None)


def test_identity_returns_the_gradient_whatever_the_damping():
    model, gradient = tiny_model("llama", tied=True), random_gradient(tiny_model("llama", tied=True))
    curvature = identity(model, damping=7.0, inverse="horizon", damping_unit="horizon")
    result = precondition(curvature, gradient)
    assert list(result) == list(gradient)
    assert all((result[name] == gradient[name]).all() for name in gradient)
    assert curvature.report.coverage() == {"identity": 1.0}
    assert (curvature.report.inverse, curvature.report.damping_unit, curvature.report.damping) == ("none", "none", 0.0)


def test_eigenvalues_of_the_identity_take_no_memory():
    curvature = identity(tiny_model("llama"))
    assert {block.eigenvalues_oi.untyped_storage().nbytes() for block in curvature} == {4}


def test_the_identity_takes_any_model_and_any_group():
    model = torch.nn.Sequential(torch.nn.Bilinear(3, 3, 2), torch.nn.PReLU())
    curvature = identity(model, groups=["linear"])
    assert [block.names for block in curvature] == [("0.weight",), ("0.bias",)]
    assert 0 < curvature.report.left_out < 1


def adam(model, state, *, train=None, horizon=None, **parameters) -> Curvature:
    return build_curvature(
        InfluenceParameters(**{"curvature": "adam"} | DAMPED | parameters),
        model,
        factors=None,
        optimizer_state=state,
        train=train or TrainParameters(),
        horizon=horizon,
    )


def test_precondition_equals_the_formula():
    model, gradient = tiny_model("llama"), random_gradient(tiny_model("llama"))
    state = {f"{name}/exp_avg_sq": g.square() + 0.1 for name, g in random_gradient(model, seed=6).items()}
    state |= {f"{name}/step": torch.tensor(3.0) for name, _ in model.named_parameters()}
    train = TrainParameters(beta2=0.9, epsilon=1e-3)
    relative = adam(model, state, train=train, damping=0.2)
    horizon = adam(model, state, train=train, damping=0.2, damping_unit="horizon", inverse="horizon", horizon=4.0)
    for name, values in precondition(relative, gradient).items():
        c = torch.sqrt(state[f"{name}/exp_avg_sq"] / (1 - 0.9**3)) + 1e-3
        torch.testing.assert_close(values, gradient[name] / (c + 0.2 * c.mean()), rtol=1e-12, atol=0)
        expected = gradient[name] * -torch.expm1(-c / 0.05) / c
        torch.testing.assert_close(precondition(horizon, gradient)[name], expected, rtol=1e-12, atol=0)
    assert relative.report.coverage() == {"adam": 1.0}


@pytest.mark.parametrize("tied", [False, True])
def test_preconditioned_gradient_is_the_step_of_the_optimiser_without_momentum(tied):
    """θ moves by −η (C + λI)⁻¹ g in one torch AdamW step, when β₁ = 0 and λ vanishes: scale and units of C."""
    train = TrainParameters(beta1=0.0, weight_decay=0.0, learning_rate=1e-3)
    model = tiny_model("llama", tied=tied)
    optimizer = train_steps(model, train, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradient = mean_gradient(model, random_batches(50), of="batch").gradient
    for name, parameter in model.named_parameters():
        parameter.grad = gradient[name].clone()
    optimizer.step(1.0)
    curvature = adam(model, optimizer.state_tensors(), train=train, damping=1e-12)
    for name, step in precondition(curvature, gradient).items():
        moved = before[name] - model.get_parameter(name).detach()
        torch.testing.assert_close(moved, 1e-3 * step, rtol=1e-6, atol=1e-12)


def test_state_is_read_and_not_changed():
    model = tiny_model("llama")
    state = train_steps(model, TrainParameters(), 2).state_tensors()
    before = {key: value.clone() for key, value in state.items()}
    curvature = adam(model, state)
    first = precondition(curvature, random_gradient(model))
    second = precondition(curvature, random_gradient(model))
    assert all((state[key] == before[key]).all() for key in state)
    assert all((first[name] == second[name]).all() for name in first)


def test_parameters_without_a_second_moment_are_named_unless_they_take_no_part():
    model = tiny_model("llama")
    state = train_steps(model, TrainParameters(optimizer="muon"), 1).state_tensors()
    with pytest.raises(TikmixError, match=r"none for model\.layers\.0\.self_attn\.q_proj\.weight.* and 2 more"):
        adam(model, state)
    rest = [group for group in GROUPS if group != "linear"]
    assert adam(model, state, groups=rest).report.coverage() == {"adam": pytest.approx(200 / 680)}


def test_missing_state_says_what_to_do():
    with pytest.raises(TikmixError, match=r"checkpoint comes without one\. Use influence\.curvature=kfac"):
        adam(tiny_model("llama"), {})
