"""Agreement with curvlinops, another implementation, wherever the definitions coincide."""

import warnings

import numpy as np
import pytest
import torch
from curvature_fits import block_of, dense, fit, fit_curvature
from influence_oracle import VOCABULARY, random_batches, tiny_model
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.curvature import fit_pass as fitting

with warnings.catch_warnings():
    # a dependency of curvlinops scripts its conjugate gradients when it is imported
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
    from curvlinops import EKFACLinearOperator, FisherType, GGNLinearOperator, KFACLinearOperator

# and torch its own decompositions, when they are first differentiated
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script` is deprecated:DeprecationWarning")

OPERATORS = {"kfac": KFACLinearOperator, "ekfac": EKFACLinearOperator}
SOFTMAX_IN_FLOAT32 = 1e-6
"""Relative: eager attention, which curvlinops can differentiate, computes its weights in float32."""


class Logits(nn.Module):
    """A language model as curvlinops wants it: one row of logits per prediction, or per sequence its last."""

    def __init__(self, model: nn.Module, *, last: bool = False) -> None:
        super().__init__()
        model.set_attn_implementation("eager")
        self.model = model
        self._last = last

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=tokens, use_cache=False).logits
        return logits[:, -1] if self._last else logits.flatten(0, 1)


def by_layout(matrix: torch.Tensor, outputs: int, inputs: int) -> torch.Tensor:
    """Reorder a block over all weights and then all biases to rows of weights with their bias last."""
    order = torch.arange(outputs * inputs).view(outputs, inputs)
    if len(matrix) > outputs * inputs:
        order = torch.cat([order, outputs * inputs + torch.arange(outputs)[:, None]], dim=1)
    order = order.flatten()
    return matrix[order][:, order]


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox"])
def test_blocks_of_the_empirical_fisher_are_those_of_curvlinops(kind, family):
    """Expand setting, sequences as examples: sums over positions, per token."""
    model, batches = tiny_model(family), random_batches(1, batches=3, sequences=4, loss="all")
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"}
    data = [(torch.tensor(b.tokens_BS[:, :-1]), torch.tensor(b.tokens_BS[:, 1:]).flatten()) for b in batches]
    parameters = [p for module in linear.values() for p in module.parameters()]
    theirs = OPERATORS[kind](
        Logits(model),
        nn.CrossEntropyLoss(),
        parameters,
        data,
        fisher_type=FisherType.EMPIRICAL,
        separate_weight_and_bias=False,
        check_deterministic=False,
        num_per_example_loss_terms=6,
        num_data=12,
    )
    matrix = theirs @ torch.eye(theirs.shape[1]).double()
    curvature, start = fit_curvature(model, batches, kind, fisher="empirical"), 0
    for name, module in linear.items():
        size = sum(p.numel() for p in module.parameters())
        expected = by_layout(matrix[start : start + size, start : start + size], *module.weight.shape)
        found = dense(block_of(curvature, f"{name}.weight"))
        torch.testing.assert_close(found, expected, rtol=0, atol=SOFTMAX_IN_FLOAT32 * float(expected.abs().max()))
        start += size


def one_loss(sequences: int, tokens: int) -> list[TokenBatch]:
    """Sequences whose last token alone carries loss, one per batch."""
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (sequences, tokens))
    carries = np.zeros(ids.shape, dtype=bool)
    carries[:, -1] = True
    return [TokenBatch(ids[[row]], carries[[row]]) for row in range(sequences)]


def gauss_newton(model: nn.Module, batches: list[TokenBatch]) -> torch.Tensor:
    """The dense matrix of the mean loss over all parameters, in the order of `named_parameters()`."""
    ids = torch.tensor(np.concatenate([batch.tokens_BS for batch in batches]))
    data = [(ids[:, :-1], ids[:, -1])]
    theirs = GGNLinearOperator(
        Logits(model, last=True), nn.CrossEntropyLoss(), list(model.parameters()), data, check_deterministic=False
    )
    return theirs @ torch.eye(theirs.shape[1]).double()


def over_all_labels(model: nn.Module, batch: TokenBatch, kind: str, monkeypatch: pytest.MonkeyPatch):
    """Yield the probability of every label of the one token that carries loss, and the fit with that label."""
    ids = torch.tensor(batch.tokens_BS[:, :-1])
    probability = model(input_ids=ids, use_cache=False).logits[0, -1].softmax(0).detach()
    for label in range(VOCABULARY):
        monkeypatch.setattr(fitting, "sample_labels", lambda rows, _, label=label: torch.full((len(rows),), label))
        yield float(probability[label]), fit(model, [batch], kind)


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("gpt_neox", False), ("gpt2", True)])
def test_diagonal_is_in_expectation_that_of_the_gauss_newton_matrix(family, tied, monkeypatch):
    """Over all parameters of a whole model, attention, norms and tied weights included."""
    model, batches = tiny_model(family, tied=tied), one_loss(sequences=2, tokens=5)
    exact = gauss_newton(model, batches).diagonal()
    expected = torch.zeros(())
    for batch in batches:
        for probability, factors in over_all_labels(model, batch, "diagonal", monkeypatch):
            values = [factors.tensors[name].flatten() for name, _ in model.named_parameters()]
            expected = expected + probability * torch.cat(values) / len(batches)
    torch.testing.assert_close(expected, exact, rtol=0, atol=SOFTMAX_IN_FLOAT32 * float(exact.max()))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox"])
def test_kfac_of_one_token_is_in_expectation_the_block_of_the_gauss_newton_matrix(family, monkeypatch):
    """With one token, nothing is left out: neither products of positions nor a spread of inputs."""
    model, (batch,) = tiny_model(family), one_loss(sequences=1, tokens=2)
    matrix, start, blocks = gauss_newton(model, [batch]), 0, {}
    for name, parameter in model.named_parameters():
        blocks[name] = slice(start, start + parameter.numel())
        start += parameter.numel()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"}
    found = {name: torch.zeros(()) for name in linear}
    for probability, factors in over_all_labels(model, batch, "kfac", monkeypatch):
        for name in linear:
            (layer,) = [layer for layer in factors.layers if layer.layer == name]
            g, a = (factors.tensors[layer.tensors[role]] for role in ("output", "input"))
            found[name] = found[name] + probability * torch.kron(g, a)
    for name, module in linear.items():
        where = torch.cat([torch.arange(start)[blocks[f"{name}.{key}"]] for key, _ in module.named_parameters()])
        exact = by_layout(matrix[where][:, where], *module.weight.shape)
        torch.testing.assert_close(found[name], exact, rtol=1e-8, atol=SOFTMAX_IN_FLOAT32 * float(matrix.abs().max()))
