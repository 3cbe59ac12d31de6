import numpy as np
import pytest
import torch
from curvature_fits import FISHER_KINDS, block_of, dense, fit, fit_curvature, precondition, use
from influence_oracle import (
    VOCABULARY,
    ToyLM,
    apply_function,
    dense_blocks,
    dense_kfac,
    flatten,
    random_batches,
    random_gradient,
    replay,
    tiny_model,
)
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature import fit_pass as fitting

MODELS = [("llama", False), ("llama", True), ("qwen2", False), ("gpt_neox", False), ("gpt2", False), ("gpt2", True)]


@pytest.mark.parametrize(("kind", "tied"), MODELS)
@pytest.mark.parametrize("loss", ["all", "some"])
def test_precondition_equals_the_dense_solve(kind, tied, loss):
    model, batches = tiny_model(kind, tied=tied), random_batches(1, loss=loss)
    matrix, dampings = dense_kfac(model, batches, seed=3, damping=0.1)
    gradient = random_gradient(model)
    expected = np.linalg.solve(matrix + np.diag(dampings), flatten(gradient))
    result = precondition(fit_curvature(model, batches), gradient)
    np.testing.assert_allclose(flatten(result), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_horizon_equals_the_dense_function_with_either_labels(fisher):
    model, batches = tiny_model("gpt2", tied=True), random_batches(1)
    curvature = use(model, fit(model, batches, fisher=fisher), inverse="horizon", damping_unit="absolute", damping=0.02)
    blocks = dense_blocks(model, batches, kind="kfac", seed=3, fisher=fisher)
    gradient = random_gradient(model)
    expected = apply_function(
        blocks, lambda mu, _: np.where(mu < 1e-12, 50.0, -np.expm1(-mu / 0.02) / mu.clip(1e-12)), flatten(gradient)
    )
    np.testing.assert_allclose(flatten(precondition(curvature, gradient)), expected, rtol=1e-7, atol=1e-7)


def expected_block(model: nn.Module, batch: TokenBatch, name: str, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The block in expectation over one label, the same for all positions, that follows the prediction at the first."""
    tokens = torch.tensor(batch.tokens_BS)
    p = model(input_ids=tokens[:1, :1], use_cache=False).logits[0, -1].softmax(0).detach()
    blocks = []
    for label in range(VOCABULARY):
        monkeypatch.setattr(fitting, "sample_labels", lambda rows, _, label=label: torch.full((len(rows),), label))
        blocks.append(p[label] * dense(block_of(fit_curvature(model, [batch]), name)))
    return torch.stack(blocks).sum(0)


def test_linear_block_is_the_exact_fisher_where_the_input_is_constant(monkeypatch):
    """F = (diag(p) − ppᵀ) ⊗ aaᵀ."""
    model = ToyLM(nn.Identity(), names_head=False).double()
    fisher = expected_block(model, TokenBatch.of_windows(np.full((2, 4), 3)), "out.weight", monkeypatch)
    inputs = torch.cat([model.embedding.weight[3], torch.ones(1)]).detach()
    p = model.out(model.embedding.weight[3]).softmax(0).detach()
    expected = torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(inputs, inputs))
    torch.testing.assert_close(fisher, expected, rtol=1e-10, atol=1e-12)


def test_embedding_block_is_the_exact_fisher_of_a_bag_of_tokens(monkeypatch):
    """Without mixing between positions, and with one token, diag(f) ⊗ G has nothing left out."""
    model = ToyLM(nn.Identity()).double()
    block = expected_block(model, TokenBatch.of_windows(np.full((2, 4), 3)), "embedding.weight", monkeypatch)
    p, weight = model.out(model.embedding.weight[3]).softmax(0).detach(), model.out.weight.detach()
    expected = torch.zeros_like(block)
    expected[12:16, 12:16] = weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight
    torch.testing.assert_close(block, expected, rtol=1e-10, atol=1e-12)


def test_norm_diagonal_equals_squared_gradients_of_single_sequences():
    model, batches = tiny_model("gpt2"), random_batches(1)
    replayed, curvature = replay(model, batches, seed=3), fit_curvature(model, batches)
    for name in ("transformer.h.0.ln_1.weight", "transformer.h.0.ln_2.bias", "transformer.ln_f.weight"):
        found = block_of(curvature, name).eigenvalues_oi.numpy()
        np.testing.assert_allclose(found, replayed.squares(name), rtol=1e-10)


@pytest.mark.parametrize("kind", ["diagonal", "kfac", "ekfac"])
def test_positions_without_loss_leave_the_factors_alone(kind):
    """In a model that does not mix positions, what stands at a position without loss cannot matter."""
    model = ToyLM(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))).double()
    batch = random_batches(1, batches=1)[0]
    tokens = batch.tokens_BS.copy()
    unused = np.ones_like(batch.loss_BS)
    unused[:, :-1] = ~batch.loss_BS[:, 1:]
    tokens[unused] = (tokens[unused] + 1) % VOCABULARY
    first, second = (fit_curvature(model, [b], kind) for b in (batch, TokenBatch(tokens, batch.loss_BS)))
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(dense(ours), dense(theirs), rtol=1e-10, atol=1e-14)
    everything = fit_curvature(model, [TokenBatch.of_windows(batch.tokens_BS)], kind)
    assert not torch.allclose(dense(first[1]), dense(everything[1]))


def test_head_block_counts_a_scale_behind_the_head():
    plain, scaled = ToyLM(nn.Identity()).double(), ToyLM(nn.Identity(), logit_scale=0.5).double()
    scaled.load_state_dict(plain.state_dict())
    scaled.out.weight.data *= 2
    scaled.out.bias.data *= 2
    blocks = [block_of(fit_curvature(m, random_batches(1)), "out.weight") for m in (plain, scaled)]
    torch.testing.assert_close(dense(blocks[1]), 0.25 * dense(blocks[0]))


def test_a_layer_used_twice_sums_its_gradients_and_averages_its_inputs():
    shared = nn.Linear(4, 4)
    model = ToyLM(nn.Sequential(shared, shared)).double()
    apart = ToyLM(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))).double()
    apart.load_state_dict(model.state_dict())
    positions = replay(apart, random_batches(1), seed=3).positions
    a = sum(np.outer(x, x) for p in positions for x in (np.append(p.inputs[f"middle.{call}"], 1) for call in (0, 1)))
    g = sum(np.outer(x, x) for p in positions for x in (p.gradients[f"middle.{call}"] for call in (0, 1)))
    block = block_of(fit_curvature(model, random_batches(1)), "middle.0.weight")
    expected = np.kron(g / len(positions), a / (2 * len(positions)))
    np.testing.assert_allclose(dense(block).numpy(), expected, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize(("kind", "shared"), [("llama", 2), ("qwen2", 2), ("gpt_neox", 0), ("gpt2", 0)])
def test_layers_that_read_one_tensor_share_its_moment_and_its_eigenvectors(kind, shared):
    model, batches = tiny_model(kind), random_batches(1)
    kfac, ekfac = fit(model, batches), fit(model, batches, "ekfac")
    for factors, role in ((kfac, "input"), (ekfac, "columns")):
        names = [layer.tensors[role] for layer in factors.layers if layer.kind == "kronecker"]
        assert sum(names.count(name) > 1 for name in set(names)) == shared
    curvature = use(model, kfac)
    if shared:
        q, k, v = (block_of(curvature, f"model.layers.0.self_attn.{name}_proj.weight") for name in "qkv")
        assert q.columns_ii is k.columns_ii is v.columns_ii


class SometimesApart(nn.Module):
    """Two layers that read the same tensor in all batches but those of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) + self.second(x + 1 if x.shape[1] == 3 else x)


def test_layers_that_stop_sharing_go_on_apart():
    model = ToyLM(SometimesApart()).double()
    batches = random_batches(1, batches=1, loss="all") + random_batches(2, batches=1, tokens=4, loss="all")
    batches += random_batches(3, batches=1, loss="all")
    factors = fit(model, batches)
    for name, shift in (("first", 0), ("second", 1)):
        rows = [model.embedding(torch.tensor(b.tokens_BS[:, :-1])).detach().flatten(0, 1) for b in batches]
        rows[1] = rows[1] + shift
        rows = nn.functional.pad(torch.cat(rows), (0, 1), value=1.0)
        torch.testing.assert_close(factors.tensors[f"middle.{name}/input"], rows.T @ rows / len(rows))


def test_a_layer_with_a_bias_shares_no_moment_with_one_without():
    model = ToyLM(SometimesApart()).double()
    model.middle.second.bias.requires_grad_(False)
    factors = fit(model, random_batches(1))
    with_bias, without = (factors.tensors[f"middle.{name}/input"] for name in ("first", "second"))
    torch.testing.assert_close(with_bias[:4, :4], without)
    assert (with_bias.shape, without.shape) == ((5, 5), (4, 4))


@pytest.mark.parametrize("kind", FISHER_KINDS)
def test_diverged_model_is_named(kind):
    model = tiny_model("llama")
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(TikmixError, match=r"curvature of .* is not finite"):
        fit_curvature(model, random_batches(1), kind)


def test_block_without_curvature_gives_zero():
    """A projection initialised to zero keeps all gradient from the layers before it."""
    model = ToyLM(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))).double()
    nn.init.zeros_(model.middle[1].weight)
    result = precondition(fit_curvature(model, random_batches(1)), random_gradient(model))
    assert (result["middle.0.weight"] == 0).all()
    assert result["middle.1.weight"].isfinite().all()
