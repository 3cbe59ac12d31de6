import numpy as np
import pytest
import torch
from influence_oracle import (
    VOCABULARY,
    ToyLM,
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
from tikmix_pipeline.influence.curvature import kfac
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.kfac import fit_kfac, sample_labels

MODELS = [("llama", False), ("llama", True), ("qwen2", False), ("gpt2", False), ("gpt2", True)]


def dense(block: EigenBlock) -> torch.Tensor:
    """The block as a matrix over the row-major entries of its layout."""
    rows, columns = block.eigenvalues_oi.shape
    q_g = torch.eye(rows).double() if block.rows_oo is None else block.rows_oo
    q_a = torch.eye(columns).double() if block.columns_ii is None else block.columns_ii
    vectors = torch.kron(q_g.contiguous(), q_a.contiguous())
    return vectors @ torch.diag(block.eigenvalues_oi.flatten()) @ vectors.T


def block_of(curvature, name: str) -> EigenBlock:
    (block,) = [block for block in curvature.blocks if name in block.layout.names]
    return block


@pytest.mark.parametrize(("kind", "tied"), MODELS)
@pytest.mark.parametrize("loss", ["all", "some"])
def test_precondition_equals_the_dense_solve(kind, tied, loss):
    model, batches = tiny_model(kind, tied=tied), random_batches(1, loss=loss)
    curvature = fit_kfac(model, batches, damping=0.1, seed=3)
    matrix, dampings = dense_kfac(model, batches, seed=3, damping=0.1)
    gradient = random_gradient(model)
    expected = np.linalg.solve(matrix + np.diag(dampings), flatten(gradient))
    np.testing.assert_allclose(flatten(curvature.precondition(gradient)), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("kind", "tied"), MODELS)
def test_every_parameter_is_covered_once_with_the_damping_reported(kind, tied):
    model, batches = tiny_model(kind, tied=tied), random_batches(1)
    report = fit_kfac(model, batches, damping=0.1, seed=3).report
    names = [name for block in report.blocks for name in block.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert sum(block.size for block in report.blocks) == sum(p.numel() for p in model.parameters())
    assert sum(report.coverage().values()) == pytest.approx(1)
    assert ("tied embedding and head" in report.coverage()) is tied
    matrix, dampings = dense_kfac(model, batches, seed=3, damping=0.1)
    reported = sum(block.mean_eigenvalue * block.size for block in report.blocks)
    assert reported == pytest.approx(np.trace(matrix), rel=1e-10)
    assert sum(block.damping * block.size for block in report.blocks) == pytest.approx(dampings.sum(), rel=1e-10)


def test_linear_block_is_the_exact_fisher_where_the_input_is_constant(monkeypatch):
    """F = (diag(p) − ppᵀ) ⊗ aaᵀ; sampling is replaced by the expectation over all labels."""
    model = ToyLM(nn.Identity(), names_head=False).double()
    batch = TokenBatch.of_windows(np.full((2, 4), 3))
    inputs = torch.cat([model.embedding.weight[3], torch.ones(1)]).detach()
    p = model.out(model.embedding.weight[3]).softmax(0).detach()
    fisher = torch.zeros(5 * VOCABULARY, 5 * VOCABULARY).double()
    for label in range(VOCABULARY):
        monkeypatch.setattr(kfac, "sample_labels", lambda rows, _, label=label: torch.full((len(rows),), label))
        fisher += p[label] * dense(block_of(fit_kfac(model, [batch], damping=0.1, seed=0), "out.weight"))
    expected = torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(inputs, inputs))
    torch.testing.assert_close(fisher, expected, rtol=1e-10, atol=1e-12)


def test_embedding_block_is_the_exact_fisher_of_a_bag_of_tokens(monkeypatch):
    """Without mixing between positions, and with one token, diag(f) ⊗ G has nothing left out."""
    model = ToyLM(nn.Identity()).double()
    batch = TokenBatch.of_windows(np.full((2, 4), 3))
    p = model.out(model.embedding.weight[3]).softmax(0).detach()
    block = torch.zeros(4 * VOCABULARY, 4 * VOCABULARY).double()
    for label in range(VOCABULARY):
        monkeypatch.setattr(kfac, "sample_labels", lambda rows, _, label=label: torch.full((len(rows),), label))
        block += p[label] * dense(block_of(fit_kfac(model, [batch], damping=0.1, seed=0), "embedding.weight"))
    weight = model.out.weight.detach()
    expected = torch.zeros_like(block)
    expected[12:16, 12:16] = weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight
    torch.testing.assert_close(block, expected, rtol=1e-10, atol=1e-12)


def test_norm_diagonal_is_the_per_token_fisher_in_expectation():
    model, batches = tiny_model("llama"), random_batches(1, batches=1)
    name = "model.layers.0.input_layernorm.weight"
    exact, tokens = torch.zeros(8).double(), 0
    for row, carries in zip(batches[0].tokens_BS, batches[0].loss_BS, strict=True):
        for position in np.flatnonzero(carries):
            log_p = model(input_ids=torch.tensor(row)[None, :position], use_cache=False).logits[0, -1].log_softmax(0)
            for label in range(VOCABULARY):
                (score,) = torch.autograd.grad(log_p[label], [model.get_parameter(name)], retain_graph=True)
                exact += log_p[label].exp().detach() * score.square()
            tokens += 1
    fits = [fit_kfac(model, batches, damping=0.1, seed=seed) for seed in range(150)]
    sampled = torch.stack([block_of(fit, name).eigenvalues_oi for fit in fits])
    standard_error = sampled.std(0) / np.sqrt(len(fits))
    assert ((sampled.mean(0) - exact / tokens).abs() < 4 * standard_error).all()
    assert (standard_error < 0.15 * exact / tokens).all()


def test_norm_diagonal_equals_squared_gradients_of_single_sequences():
    model, batches = tiny_model("gpt2"), random_batches(1)
    positions, squares = replay(model, batches, seed=3)
    curvature = fit_kfac(model, batches, damping=0.1, seed=3)
    for name in ("transformer.h.0.ln_1.weight", "transformer.h.0.ln_2.bias", "transformer.ln_f.weight"):
        expected = squares[name] / len(positions)
        np.testing.assert_allclose(block_of(curvature, name).eigenvalues_oi.numpy(), expected, rtol=1e-10)


def test_positions_without_loss_leave_the_factors_alone():
    """In a model that does not mix positions, what stands at a position without loss cannot matter."""
    model = ToyLM(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))).double()
    batch = random_batches(1, batches=1)[0]
    tokens = batch.tokens_BS.copy()
    unused = np.ones_like(batch.loss_BS)
    unused[:, :-1] = ~batch.loss_BS[:, 1:]
    tokens[unused] = (tokens[unused] + 1) % VOCABULARY
    other = TokenBatch(tokens, batch.loss_BS)
    first, second = (fit_kfac(model, [b], damping=0.1, seed=3) for b in (batch, other))
    for ours, theirs in zip(first.blocks, second.blocks, strict=True):
        torch.testing.assert_close(dense_or_diagonal(ours), dense_or_diagonal(theirs), rtol=1e-10, atol=1e-14)
    everything = fit_kfac(model, [TokenBatch.of_windows(batch.tokens_BS)], damping=0.1, seed=3)
    assert not torch.allclose(dense(block_of(first, "middle.0.weight")), dense(block_of(everything, "middle.0.weight")))


def dense_or_diagonal(block: EigenBlock) -> torch.Tensor:
    return block.eigenvalues_oi if block.eigenvalues_oi.ndim == 1 else dense(block)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_factors_do_not_depend_on_the_batch_size_or_on_padding(kind):
    model, (batch,) = tiny_model(kind), random_batches(1, batches=1, sequences=4)
    singles = [TokenBatch(batch.tokens_BS[[row]], batch.loss_BS[[row]]) for row in range(4)]
    padded = TokenBatch(
        np.concatenate([batch.tokens_BS, np.full((4, 3), 7)], axis=1), np.pad(batch.loss_BS, ((0, 0), (0, 3)))
    )
    gradient = random_gradient(model)
    reference = flatten(fit_kfac(model, [batch], damping=0.1, seed=3).precondition(gradient))
    for batches in (singles, [padded]):
        other = fit_kfac(model, batches, damping=0.1, seed=3).precondition(gradient)
        np.testing.assert_allclose(flatten(other), reference, rtol=1e-8)


def test_large_damping_tends_to_the_plain_gradient():
    model, gradient = tiny_model("llama"), random_gradient(tiny_model("llama"))
    curvature = fit_kfac(model, random_batches(1), damping=1e9, seed=3)
    result = curvature.precondition(gradient)
    for block in curvature.report.blocks:
        for name in block.parameters:
            torch.testing.assert_close(block.damping * result[name], gradient[name], rtol=1e-5, atol=1e-6)


def test_head_block_counts_a_scale_behind_the_head():
    plain, scaled = ToyLM(nn.Identity()).double(), ToyLM(nn.Identity(), logit_scale=0.5).double()
    scaled.load_state_dict(plain.state_dict())
    scaled.out.weight.data *= 2
    scaled.out.bias.data *= 2
    blocks = [block_of(fit_kfac(m, random_batches(1), damping=0.1, seed=3), "out.weight") for m in (plain, scaled)]
    torch.testing.assert_close(dense(blocks[1]), 0.25 * dense(blocks[0]))


def test_a_layer_used_twice_sums_its_gradients_and_averages_its_inputs():
    shared = nn.Linear(4, 4)
    model = ToyLM(nn.Sequential(shared, shared)).double()
    apart = ToyLM(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))).double()
    apart.load_state_dict(model.state_dict())
    positions, _ = replay(apart, random_batches(1), seed=3)
    a = sum(np.outer(x, x) for p in positions for x in (np.append(p.inputs[f"middle.{call}"], 1) for call in (0, 1)))
    g = sum(np.outer(x, x) for p in positions for x in (p.gradients[f"middle.{call}"] for call in (0, 1)))
    block = block_of(fit_kfac(model, random_batches(1), damping=0.1, seed=3), "middle.0.weight")
    expected = np.kron(g / len(positions), a / (2 * len(positions)))
    np.testing.assert_allclose(dense(block).numpy(), expected, rtol=1e-8, atol=1e-14)


def test_labels_follow_the_predicted_distribution_and_never_an_impossible_token():
    probability = torch.tensor([[0.0, 0.1, 0.6, 0.0, 0.3, 0.0]]).expand(20_000, -1)
    labels = sample_labels(probability, torch.Generator().manual_seed(0))
    frequency = torch.bincount(labels, minlength=6) / len(labels)
    torch.testing.assert_close(frequency, probability[0], rtol=0, atol=0.015)
    assert set(labels.tolist()) == {1, 2, 4}


def test_same_seed_same_factors_other_seed_other_labels():
    model, gradient = tiny_model("llama"), random_gradient(tiny_model("llama"))
    first, again, other = (
        flatten(fit_kfac(model, random_batches(1), damping=0.1, seed=seed).precondition(gradient)) for seed in (3, 3, 4)
    )
    assert (first == again).all()
    assert not np.allclose(first, other)


def test_model_is_left_as_it_was():
    model = tiny_model("gpt2").train()
    model.transformer.h[0].eval()
    sentinel = {name: torch.full_like(p, 7) for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = sentinel[name]
    modes = [module.training for module in model.modules()]
    fit_kfac(model, random_batches(1), damping=0.1, seed=3)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is sentinel[name] and (p.grad == 7).all() for name, p in model.named_parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_frozen_parameters_are_neither_needed_nor_touched():
    model = tiny_model("llama")
    model.model.embed_tokens.weight.requires_grad_(False)
    model.model.norm.weight.requires_grad_(False)
    full = fit_kfac(tiny_model("llama"), random_batches(1), damping=0.1, seed=3)
    curvature = fit_kfac(model, random_batches(1), damping=0.1, seed=3)
    names = {name for block in curvature.report.blocks for name in block.parameters}
    assert names == {name for name, p in model.named_parameters() if p.requires_grad}
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(dense(block_of(curvature, name)), dense(block_of(full, name)))


def test_precision_of_the_weights_is_kept():
    model = tiny_model("llama", tied=True).float()
    gradient = {name: values.float() for name, values in random_gradient(model).items()}
    result = fit_kfac(model, random_batches(1), damping=0.1, seed=3).precondition(gradient)
    assert {values.dtype for values in result.values()} == {torch.float32}


class Scale(nn.Module):
    """A matrix-valued parameter that no block is known for."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.table


class Flattened(nn.Module):
    """Hands its layer tokens without sequences, as a router of experts does."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(0, 1)).view(x.shape)


class Unused(nn.Identity):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(4, 4)


def shares_a_weight() -> nn.Module:
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    layers[1].weight = layers[0].weight
    return layers


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (Scale(), r"does not know the kind of layer of middle\.table"),
        (shares_a_weight(), r"cannot handle layers that share middle\.0\.weight"),
        (Flattened(nn.Linear(4, 4)), r"positions in layer middle\.layer"),
        (Flattened(nn.LayerNorm(4)), r"sequences in layer middle\.layer"),
        (Unused(), r"no gradient reaches layer middle\.spare"),
    ],
)
def test_what_cannot_be_covered_is_named(middle, message):
    with pytest.raises(TikmixError, match=message):
        fit_kfac(ToyLM(middle), random_batches(1), damping=0.1, seed=3)


def test_diverged_model_is_named():
    model = tiny_model("llama")
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(TikmixError, match=r"curvature of .* is not finite"):
        fit_kfac(model, random_batches(1), damping=0.1, seed=3)


def test_no_text_is_refused():
    with pytest.raises(TikmixError, match="no text to fit"):
        fit_kfac(tiny_model("llama"), [], damping=0.1, seed=3)


def test_block_without_curvature_gives_zero():
    """A projection initialised to zero keeps all gradient from the layers before it."""
    model = ToyLM(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))).double()
    nn.init.zeros_(model.middle[1].weight)
    curvature = fit_kfac(model, random_batches(1), damping=0.1, seed=3)
    result = curvature.precondition(random_gradient(model))
    assert (result["middle.0.weight"] == 0).all()
    assert result["middle.1.weight"].isfinite().all()
