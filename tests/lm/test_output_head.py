import numpy as np
import pytest
import torch
from lm_examples import CappedModel, gpt2_model, tied_model, tiny_model
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.lm import output_head
from tikmix_pipeline.lm.cost import FlopCounter
from tikmix_pipeline.lm.loss import summed_loss, token_losses

MODELS = [tiny_model, tied_model, gpt2_model]


@pytest.fixture
def few_logits(monkeypatch):
    """Take seven tokens at a time, which divides no batch below."""
    monkeypatch.setattr(output_head, "MOST_LOGITS", 7 * 320)


def random_batch(*, everywhere: bool = False) -> TokenBatch:
    generator = np.random.default_rng(0)
    tokens_BS = generator.integers(0, 320, (6, 12))
    if everywhere:
        return TokenBatch.of_windows(tokens_BS)
    loss_BS = generator.random(tokens_BS.shape) < 0.6
    loss_BS[:, 0] = False
    return TokenBatch(tokens_BS, loss_BS)


def loss_and_gradient(model: nn.Module, batch: TokenBatch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss, _ = summed_loss(model, batch)
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


def whole(monkeypatch, function, *arguments):
    """Do it with the logits whole."""
    with monkeypatch.context() as patch:
        patch.setattr(output_head, "MOST_LOGITS", 1 << 40)
        return function(*arguments)


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("build", MODELS)
def test_chunks_of_tokens_have_the_loss_and_gradients_of_whole_logits(
    build, dtype, everywhere, few_logits, monkeypatch
):
    model, batch = build().eval().to(dtype), random_batch(everywhere=everywhere)
    loss, gradients = loss_and_gradient(model, batch)
    expected, plain = whole(monkeypatch, loss_and_gradient, model, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6 if dtype == torch.float32 else 1e-12)
    for found, right in zip(gradients, plain, strict=True):
        assert (found - right).norm() <= (1e-5 if dtype == torch.float32 else 1e-10) * right.norm()


@pytest.mark.parametrize("cast", ["weights", "products"])
def test_lower_precision_sums_the_loss_in_float32(cast, few_logits, monkeypatch):
    model, batch = tied_model().eval(), random_batch()
    if cast == "weights":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=cast == "products"):
        loss, gradients = loss_and_gradient(model, batch)
        expected, plain = whole(monkeypatch, loss_and_gradient, model, batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for found, right in zip(gradients, plain, strict=True):
        # bfloat16 keeps eight bits, and chunks are added up in another order
        assert (found - right).float().norm() <= 2e-2 * right.float().norm()


@pytest.mark.parametrize("build", MODELS)
def test_scores_of_texts_are_those_of_whole_logits(build, few_logits, monkeypatch):
    model, batch = build().eval(), random_batch()
    both = [batch, TokenBatch.of_windows(batch.tokens_BS)]
    with torch.no_grad():
        for found, expected in zip(
            token_losses(model, both), whole(monkeypatch, token_losses, model, both), strict=True
        ):
            assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_no_tensor_of_a_pass_holds_more_logits_than_a_chunk_has(few_logits):
    model, batch = tied_model(), random_batch(everywhere=True)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t):
        summed_loss(model, batch)
    assert max(sizes) < len(batch) * 11 * 320


def test_operations_are_counted_alike(few_logits, monkeypatch):
    def operations() -> float:
        with FlopCounter() as counter:
            loss_and_gradient(model, batch)
        return counter.flops

    model, batch = tied_model(), random_batch(everywhere=True)
    operations()  # the first pass also finds out whether the head can be divided
    assert operations() == whole(monkeypatch, operations)


def test_model_that_changes_its_logits_behind_the_head_keeps_them_whole(few_logits, monkeypatch):
    model, batch = CappedModel(tiny_model()).eval(), random_batch()
    assert output_head.divisible_head(model, 1000) is None
    assert output_head.divisible_head(model.inner, 1000) is model.inner.lm_head
    loss, _ = loss_and_gradient(model, batch)
    assert loss == whole(monkeypatch, loss_and_gradient, model, batch)[0]


def test_head_works_as_before_afterwards(few_logits):
    model, batch = tiny_model().eval(), random_batch()
    before = model(input_ids=torch.from_numpy(batch.tokens_BS)).logits
    summed_loss(model, batch)
    assert "forward" not in vars(model.lm_head)
    assert torch.equal(model(input_ids=torch.from_numpy(batch.tokens_BS)).logits, before)
