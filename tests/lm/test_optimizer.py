import pytest
import torch
from lm_examples import gpt2_model, tied_model, tiny_model, train_parameters
from torch import nn
from transformers import PreTrainedModel

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.optimizer import NamedOptimizer

BLOCK = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
BLOCK += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def entries(optimizer: NamedOptimizer) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key in optimizer.state_tensors():
        name, entry = key.rsplit("/", 1)
        found.setdefault(name, set()).add(entry)
    return found


def stepped(model: PreTrainedModel, *, steps: int = 1, **changes: object) -> NamedOptimizer:
    optimizer = NamedOptimizer(model, train_parameters(**changes))
    for seed in range(steps):
        set_gradients(model, seed)
        optimizer.step(1.0)
    return optimizer


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weight_decay_shrinks_matrices_and_embeddings_and_no_vector(optimizer):
    """With zero gradients, a step leaves only the decay."""
    model = gpt2_model()
    nn.init.ones_(model.transformer.h[0].mlp.c_fc.bias)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rates = {"learning_rate": 0.01, "muon_learning_rate": 0.02}
    NamedOptimizer(model, train_parameters(optimizer=optimizer, weight_decay=0.5, **rates)).step(1.0)
    embeddings = {"transformer.wte.weight", "transformer.wpe.weight"}
    for name, p in model.named_parameters():
        by_muon = optimizer == "muon" and name not in embeddings
        kept = 1.0 if p.ndim < 2 else 1 - 0.5 * rates["muon_learning_rate" if by_muon else "learning_rate"]
        torch.testing.assert_close(p.detach(), kept * before[name])


def test_muon_moves_the_matrices_of_the_blocks_and_nothing_else():
    by_muon = {name for name, kept in entries(stepped(tiny_model(), optimizer="muon")).items() if kept != ADAMW}
    assert by_muon == {f"model.layers.{layer}.{matrix}.weight" for layer in (0, 1) for matrix in BLOCK}
    assert {frozenset(kept) for kept in entries(stepped(tiny_model(), optimizer="muon")).values()} == {
        frozenset(ADAMW),
        frozenset({"momentum_buffer"}),
    }


@pytest.mark.parametrize("build", [tied_model, gpt2_model])
def test_muon_leaves_embeddings_that_are_also_heads_and_positions_to_adamw(build):
    by_adamw = {name for name, kept in entries(stepped(build(), optimizer="muon")).items() if kept == ADAMW}
    matrices = {name for name, p in build().named_parameters() if p.ndim == 2 and name in by_adamw}
    assert matrices <= {"model.embed_tokens.weight", "transformer.wte.weight", "transformer.wpe.weight"}


ADAMW = {"step", "exp_avg", "exp_avg_sq"}


def test_adamw_keeps_its_state_by_parameter_name():
    model = tiny_model()
    assert entries(stepped(model)) == dict.fromkeys([name for name, _ in model.named_parameters()], ADAMW)
    assert NamedOptimizer(model, train_parameters()).state_tensors() == {}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_restored_state_takes_the_same_next_step(optimizer):
    model, copy = tiny_model(), tiny_model(seed=1)
    original = stepped(model, steps=3, optimizer=optimizer)
    copy.load_state_dict(model.state_dict())
    restored = NamedOptimizer(copy, train_parameters(optimizer=optimizer))
    restored.load_state_tensors(original.state_tensors())
    for one, both in ((model, original), (copy, restored)):
        set_gradients(one, 7)
        both.step(0.5)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), copy.parameters(), strict=True))


def test_restored_state_shares_no_memory_with_what_it_came_from():
    original = stepped(tiny_model())
    saved = original.state_tensors()
    kept = {name: value.clone() for name, value in saved.items()}
    model = tiny_model()
    restored = NamedOptimizer(model, train_parameters())
    restored.load_state_tensors(saved)
    set_gradients(model, 1)
    restored.step(1.0)
    assert all(torch.equal(saved[name], value) for name, value in kept.items())


@pytest.mark.parametrize(("trained_with", "resumed_with"), [("adamw", "muon"), ("muon", "adamw")])
def test_state_of_another_optimizer_is_refused_and_nothing_loaded(trained_with, resumed_with):
    saved = stepped(tiny_model(), optimizer=trained_with).state_tensors()
    optimizer = NamedOptimizer(tiny_model(), train_parameters(optimizer=resumed_with))
    with pytest.raises(TikmixError, match=r"_proj\.weight.*Set train\.optimizer"):
        optimizer.load_state_tensors(saved)
    assert optimizer.state_tensors() == {}


def test_state_of_another_model_is_refused():
    optimizer = NamedOptimizer(tiny_model(), train_parameters())
    with pytest.raises(TikmixError, match=r"of transformer\.\S+; the optimiser to be resumed keeps nothing"):
        optimizer.load_state_tensors(stepped(gpt2_model()).state_tensors())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_factor_scales_every_step_and_gradients_are_cleared(optimizer):
    """The first step of both optimisers is proportional to its rate where nothing decays."""
    moved = []
    for factor in (1.0, 0.25):
        model = tiny_model()
        before = [p.detach().clone() for p in model.parameters()]
        set_gradients(model, 0)
        NamedOptimizer(model, train_parameters(optimizer=optimizer, weight_decay=0.0)).step(factor)
        moved.append([p.detach() - q for p, q in zip(model.parameters(), before, strict=True)])
        assert all(p.grad is None for p in model.parameters())
    for whole, quarter in zip(*moved, strict=True):
        # what is compared is the difference of float32 weights of order one
        torch.testing.assert_close(quarter, whole / 4, rtol=1e-3, atol=2e-7)
    assert all(whole.abs().max() > 1e-4 for whole in moved[0])


def test_frozen_parameters_do_not_move():
    model = tiny_model()
    model.get_input_embeddings().weight.requires_grad_(False)
    before = model.get_input_embeddings().weight.clone()
    assert "model.embed_tokens.weight" not in entries(stepped(model))
    assert torch.equal(model.get_input_embeddings().weight, before)
