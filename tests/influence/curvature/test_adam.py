import pytest
import torch
from influence_oracle import random_batches, random_gradient, tiny_model, train_steps

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.adam import fit_adam
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.parameters import TrainParameters


def test_precondition_equals_the_formula():
    model, gradient, beta2, epsilon = tiny_model("llama"), random_gradient(tiny_model("llama")), 0.9, 1e-3
    state = {f"{name}/exp_avg_sq": g.square() + 0.1 for name, g in random_gradient(model, seed=6).items()}
    state |= {f"{name}/step": torch.tensor(3.0) for name, _ in model.named_parameters()}
    curvature = fit_adam(model, state, beta2=beta2, epsilon=epsilon, damping=0.2)
    for name, values in curvature.precondition(gradient).items():
        c = torch.sqrt(state[f"{name}/exp_avg_sq"] / (1 - beta2**3)) + epsilon
        torch.testing.assert_close(values, gradient[name] / (c + 0.2 * c.mean()), rtol=1e-12, atol=0)
    assert curvature.report.coverage() == {"adam": 1.0}


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
    curvature = fit_adam(model, optimizer.state_tensors(), beta2=train.beta2, epsilon=train.epsilon, damping=1e-12)
    for name, step in curvature.precondition(gradient).items():
        moved = before[name] - model.get_parameter(name).detach()
        torch.testing.assert_close(moved, 1e-3 * step, rtol=1e-6, atol=1e-12)


def test_state_is_read_and_not_changed():
    model = tiny_model("llama")
    state = train_steps(model, TrainParameters(), 2).state_tensors()
    before = {key: value.clone() for key, value in state.items()}
    curvature = fit_adam(model, state, beta2=0.95, epsilon=1e-8, damping=0.1)
    first = curvature.precondition(random_gradient(model))
    second = curvature.precondition(random_gradient(model))
    assert all((state[key] == before[key]).all() for key in state)
    assert all((first[name] == second[name]).all() for name in first)


def test_parameters_without_a_second_moment_are_named():
    model = tiny_model("llama")
    state = train_steps(model, TrainParameters(optimizer="muon"), 1).state_tensors()
    with pytest.raises(TikmixError, match=r"none for model\.layers\.0\.self_attn\.q_proj\.weight.* and 2 more"):
        fit_adam(model, state, beta2=0.95, epsilon=1e-8, damping=0.1)
