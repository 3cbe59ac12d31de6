import pytest
import torch
from curvature_fits import DAMPED, GROUPS, precondition
from influence_oracle import random_batches, random_gradient, tiny_model, train_steps

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters


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
