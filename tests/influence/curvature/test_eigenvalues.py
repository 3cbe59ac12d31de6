import numpy as np
import pytest
import torch
from curvature_fits import block_of, dense, eigenvectors, fit, fit_curvature, precondition, use
from influence_oracle import (
    VOCABULARY,
    ToyLM,
    apply_function,
    dense_blocks,
    fisher_diagonal,
    flatten,
    head_block,
    random_batches,
    random_gradient,
    replay,
    sampled_fisher,
    score_moment,
    tiny_model,
)
from torch import nn

from tikmix_pipeline.influence.curvature import eigenvalues
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock

MODELS = [("llama", False), ("llama", True), ("qwen2", False), ("gpt_neox", False), ("gpt2", False), ("gpt2", True)]
CASES = [(*model, "true") for model in MODELS] + [("llama", True, "empirical"), ("gpt_neox", False, "empirical")]


@pytest.mark.parametrize(("kind", "tied", "fisher"), CASES)
def test_diagonal_equals_squared_gradients_of_single_sequences(kind, tied, fisher):
    """And for the rows of a head that no sequence reads, their exact expectation over labels."""
    model, batches = tiny_model(kind, tied=tied), random_batches(1)
    curvature = fit_curvature(model, batches, "diagonal", fisher=fisher)
    gradient = random_gradient(model)
    blocks = dense_blocks(model, batches, kind="diagonal", seed=3, fisher=fisher)
    expected = apply_function(blocks, lambda mu, mean: 1 / (mu + 0.1 * mean), flatten(gradient))
    np.testing.assert_allclose(flatten(precondition(curvature, gradient)), expected, rtol=1e-8, atol=1e-8)
    assert [block.names for block in curvature] == [(name,) for name, _ in model.named_parameters()]


def fisher_of(replayed, block: EigenBlock) -> np.ndarray:
    """The Fisher of a layer that EK-FAC is fitted to: sampled, but of an untied head exact over labels."""
    if block.kind == "head" and replayed.fisher == "true":
        layer = block.names[0].removesuffix(".weight")
        positions = replayed.positions
        scores = [np.kron(score_moment(p, "true"), np.outer(p.inputs[layer], p.inputs[layer])) for p in positions]
        return sum(scores) / len(positions)
    names = dict(zip(("weight", "bias"), block.names, strict=False))
    return sampled_fisher(replayed, **names, transposed=block.layout.transposed)


@pytest.mark.parametrize(("kind", "tied", "fisher"), CASES)
def test_ekfac_takes_the_eigenvectors_of_kfac_and_the_diagonal_of_the_fisher_in_them(kind, tied, fisher):
    model, batches = tiny_model(kind, tied=tied), random_batches(1)
    kfac, ekfac = (fit_curvature(model, batches, k, fisher=fisher) for k in ("kfac", "ekfac"))
    replayed = replay(model, batches, 3, fisher)
    for theirs, ours in zip(kfac, ekfac, strict=True):
        assert (theirs.names, theirs.kind) == (ours.names, ours.kind)
        if ours.kind == "diagonal":
            torch.testing.assert_close(ours.eigenvalues_oi, theirs.eigenvalues_oi)
            continue
        vectors = eigenvectors(ours)
        torch.testing.assert_close(vectors.T @ vectors, torch.eye(len(vectors)).double())
        rotated = vectors.T @ dense(theirs) @ vectors
        torch.testing.assert_close(rotated, torch.diag(rotated.diagonal()), rtol=0, atol=1e-10)
        if ours.kind == "tied embedding and head":
            expected = fisher_diagonal(replayed, ours.columns_ii.numpy())[ours.names[0]].flatten()
        else:
            expected = np.diag(vectors.T.numpy() @ fisher_of(replayed, ours) @ vectors.numpy())
        np.testing.assert_allclose(ours.eigenvalues_oi.flatten().numpy(), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("kind", "tied", "fisher"), CASES)
def test_ekfac_is_never_further_from_the_fisher_than_kfac(kind, tied, fisher):
    """In Frobenius norm, block by block; the labels of both passes must be the same."""
    model, batches = tiny_model(kind, tied=tied), random_batches(1)
    kfac, ekfac = (fit_curvature(model, batches, k, fisher=fisher) for k in ("kfac", "ekfac"))
    replayed, nearer = replay(model, batches, 3, fisher), []
    for theirs, ours in zip(kfac, ekfac, strict=True):
        if ours.kind in ("kronecker", "embedding", "head"):
            target = fisher_of(replayed, ours)
            distances = [np.linalg.norm(dense(block).numpy() - target) for block in (ours, theirs)]
            assert distances[0] <= distances[1] * (1 + 1e-12)
            nearer.append(distances[0] < 0.9 * distances[1])
    assert any(nearer)


@pytest.mark.parametrize("kind", ["diagonal", "ekfac"])
def test_precondition_equals_the_dense_solve_in_the_basis_found(kind):
    model, gradient = tiny_model("qwen2", tied=True), random_gradient(tiny_model("qwen2", tied=True))
    curvature = fit_curvature(model, random_batches(1), kind)
    result = precondition(curvature, gradient)
    for block, reported in zip(curvature, curvature.report.blocks, strict=True):
        rows = {name: gradient[name][None] for name in block.names}
        vector = block.layout.gather(rows)[0].flatten()
        matrix = dense(block) if block.eigenvalues_oi.ndim == 2 else torch.diag(block.eigenvalues_oi)
        solved = torch.linalg.solve(matrix + reported.damping * torch.eye(len(matrix)).double(), vector)
        found = block.layout.gather({name: result[name][None] for name in block.names})[0].flatten()
        torch.testing.assert_close(found, solved, rtol=1e-8, atol=1e-8)


def test_head_of_a_logistic_regression_is_closed_form():
    """One linear map and a softmax on fixed inputs: F = (1/N) Σ_n (diag(p_n) − p_n p_nᵀ) ⊗ h_n h_nᵀ."""
    model, batches = ToyLM(nn.Identity()).double(), random_batches(1, loss="all")
    ids = torch.cat([torch.tensor(batch.tokens_BS[:, :-1]).flatten() for batch in batches])
    hidden = nn.functional.pad(model.embedding(ids).detach(), (0, 1), value=1.0)
    p = model.out(model.embedding(ids)).softmax(1).detach()
    logits = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    fisher = torch.einsum("nuv,ni,nj->uivj", logits, hidden, hidden).reshape(55, 55) / len(ids)
    diagonal = fit(model, batches, "diagonal").tensors
    found = torch.cat([diagonal["out.weight"], diagonal["out.bias"][:, None]], dim=1)
    torch.testing.assert_close(found.flatten(), fisher.diagonal(), rtol=1e-10, atol=1e-14)
    block = block_of(fit_curvature(model, batches, "ekfac"), "out.weight")
    vectors = eigenvectors(block)
    rotated = (vectors.T @ fisher @ vectors).diagonal()
    torch.testing.assert_close(block.eigenvalues_oi.flatten(), rotated, rtol=1e-10, atol=1e-14)
    kronecker = dense(block_of(fit_curvature(model, batches), "out.weight"))
    blocks = [torch.outer(h, h) for h in hidden]
    expected = torch.kron(torch.diag((p * (1 - p)).mean(0)), torch.stack(blocks).mean(0))
    torch.testing.assert_close(kronecker, expected, rtol=1e-10, atol=1e-14)


def test_tied_diagonal_is_that_of_the_untied_twins_where_the_rows_are_not_read():
    model, batches = tiny_model("llama", tied=True), random_batches(1)
    replayed = replay(model, batches, 3)
    exact = np.diag(head_block(replayed, "lm_head")).reshape(VOCABULARY, 8)
    read = sorted({token for sequence in replayed.sequences for token in sequence.read})
    unread = [row for row in range(VOCABULARY) if row not in read] or pytest.fail("every token is read")
    per_token = sum(
        np.outer(np.diag(score_moment(p, "true")), p.inputs["lm_head"] ** 2) for p in replayed.positions
    ) / len(replayed.positions)
    found = fit(model, batches, "diagonal").tensors["model.embed_tokens.weight"].numpy()
    np.testing.assert_allclose(found[unread], per_token[unread], rtol=1e-10)
    assert not np.allclose(found[read], exact[read], rtol=0.01)


def test_a_layer_used_twice_sums_its_gradients_before_they_are_squared():
    shared = nn.Linear(4, 4)
    model = ToyLM(nn.Sequential(shared, nn.Tanh(), shared)).double()
    replayed = replay(model, random_batches(1), 3)
    tensors = fit(model, random_batches(1), "diagonal").tensors
    for name in ("middle.0.weight", "middle.0.bias"):
        np.testing.assert_allclose(tensors[name].numpy(), replayed.squares(name), rtol=1e-10)


@pytest.mark.parametrize("kind", ["diagonal", "ekfac"])
@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_working_memory_changes_nothing(kind, fisher, monkeypatch):
    model, batches = tiny_model("llama", tied=True), random_batches(1)
    first = fit(model, batches, kind, fisher=fisher)
    monkeypatch.setattr(eigenvalues, "_WORKING_SCALARS", 17)
    second = fit(model, batches, kind, fisher=fisher)
    for name, values in first.tensors.items():
        torch.testing.assert_close(second.tensors[name], values, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("positions", [3, 7, 20])
def test_order_of_contraction_changes_nothing(positions):
    """Sequences shorter than both widths, between them, and longer."""
    generator = torch.Generator().manual_seed(0)
    gradient, inputs = (torch.randn(2, positions, n, generator=generator).double() for n in (5, 9))
    rows, columns = (torch.linalg.qr(torch.randn(n, n, generator=generator).double())[0] for n in (5, 9))
    found = eigenvalues._rotated_squares(gradient, inputs, eigenvalues.Basis(rows, columns))
    expected = (rows.T @ torch.einsum("bpo,bpi->boi", gradient, inputs) @ columns).square().sum(0)
    torch.testing.assert_close(found, expected)


def test_eigenvalues_are_those_of_the_factors_saved_beside_them():
    """The second pass sees the labels of the first: with other labels, its mean eigenvalue would be another."""
    model, batches = tiny_model("llama"), random_batches(1)
    factors = fit(model, batches, "ekfac")
    replayed = replay(model, batches, 3)
    name = "model.layers.0.mlp.down_proj.weight"
    assert block_of(use(model, factors), name).eigenvalues_oi.sum() == pytest.approx(replayed.squares(name).sum())
