"""The loss of multiple choice, chunked and batched, against one option after the other."""

import math

import numpy as np
import pytest
import torch
from choice_examples import choice_items, item_losses, item_of
from lm_examples import CappedModel, gpt2_model, tied_model, tiny_model
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch, choice_batches
from tikmix_pipeline.distributed.process_group import ProcessGroup
from tikmix_pipeline.lm import output_head
from tikmix_pipeline.lm.choice import choice_losses, summed_terms
from tikmix_pipeline.lm.evaluation import text_losses
from tikmix_pipeline.lm.loss import rows_for, summed_loss

CONTEXT = 12
RNG = np.random.default_rng(7)
LONG = [
    item_of(list(range(1, 20)), [[5, 6, 7], [8]], 1, RNG),
    item_of([3, 4], [list(range(30, 50)), [9, 9], list(range(60, 73))], 0, RNG),
]
"""A question that is cut, and options longer than the context by themselves."""
ITEMS = [*choice_items(9), *LONG]


def batches_of(items=ITEMS, batch_size: int = 8) -> list[ChoiceBatch]:
    return choice_batches(items, context=CONTEXT, batch_size=batch_size, pad_id=0)


def mean_loss(model: nn.Module, batches: list[ChoiceBatch]) -> Tensor:
    return torch.stack([choice_losses(model, batch).sum() for batch in batches]).sum() / sum(b.terms for b in batches)


def gradient_of(loss: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.fixture(params=[1 << 24, 7 * 320], ids=["one chunk", "chunks"])
def _logits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of all tokens of options at once, or of seven."""
    monkeypatch.setattr(output_head, "MOST_LOGITS", request.param)


@pytest.mark.usefixtures("_logits")
@pytest.mark.parametrize("build", [tiny_model, tied_model, gpt2_model])
@torch.no_grad()
def test_loss_is_that_of_the_log_likelihoods_of_single_options(build):
    model = build().eval()
    expected = torch.stack(item_losses(model, ITEMS, CONTEXT)).mean()
    assert float(mean_loss(model, batches_of())) == pytest.approx(float(expected), rel=1e-5)
    found = torch.cat([choice_losses(model, batch) for batch in batches_of()])
    torch.testing.assert_close(found.sort()[0], torch.stack(item_losses(model, ITEMS, CONTEXT)).sort()[0])


def test_logits_that_are_changed_behind_the_head_are_changed_here_too():
    model = CappedModel(gpt2_model()).eval().double()
    found = mean_loss(model, batches_of())
    expected = torch.stack(item_losses(model, ITEMS, CONTEXT)).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient_of(found, model), gradient_of(expected, model), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("_logits")
@pytest.mark.parametrize("build", [tied_model, gpt2_model])
def test_gradient_is_that_of_the_log_likelihoods_of_single_options(build):
    """In float64; the RMS norms of the first model compute in float32 whatever the weights are."""
    model = build().eval().double()
    found = gradient_of(mean_loss(model, batches_of()), model)
    expected = gradient_of(torch.stack(item_losses(model, ITEMS, CONTEXT)).mean(), model)
    assert float(expected.norm()) > 1e-3
    assert (found - expected).norm() <= (1e-10 if build is gpt2_model else 1e-5) * expected.norm()


@pytest.mark.usefixtures("_logits")
def test_gradient_is_the_slope_of_the_loss():
    model = gpt2_model().eval().double()
    gradient = gradient_of(mean_loss(model, batches_of()), model)
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    torch.manual_seed(0)
    direction = torch.randn_like(start)

    @torch.no_grad()
    def at(step: float) -> float:
        nn.utils.vector_to_parameters(start + step * direction, model.parameters())
        return float(mean_loss(model, batches_of()))

    assert (at(1e-5) - at(-1e-5)) / 2e-5 == pytest.approx(float(gradient @ direction), rel=1e-6)


def test_lower_precision_is_raised_before_options_are_weighed(monkeypatch):
    monkeypatch.setattr(output_head, "MOST_LOGITS", 7 * 320)
    model = tied_model().eval()
    plain = gradient_of(mean_loss(model, batches_of()), model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = mean_loss(model, batches_of())
        found = gradient_of(loss, model)
    assert loss.dtype == torch.float32
    assert (found - plain).norm() <= 5e-2 * plain.norm()  # bfloat16 keeps eight bits


def test_no_logits_are_kept_between_the_passes(monkeypatch):
    monkeypatch.setattr(output_head, "MOST_LOGITS", 7 * 320)
    model, shapes = tied_model(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: shapes.append(kept.shape) or kept, lambda kept: kept):
        for batch in batches_of():
            choice_losses(model, batch).sum()
    weight = model.get_input_embeddings().weight.numel()
    assert shapes
    assert not [shape for shape in shapes if shape and shape[-1] == 320 and shape.numel() != weight]


def test_logits_of_no_more_tokens_than_a_chunk_has_are_made_at_once(monkeypatch):
    """And of none but those of options."""
    monkeypatch.setattr(output_head, "MOST_LOGITS", 7 * 320)
    model, seen = tiny_model().eval(), []
    choice_losses(model, batches_of()[0])  # the first pass also finds out whether the head can be divided
    linear = torch.nn.functional.linear

    def noting(values, weight, bias=None):
        if weight is model.lm_head.weight:
            seen.append(len(values))
        return linear(values, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", noting)
    batches = batches_of()
    for batch in batches:
        choice_losses(model, batch).sum()
    assert max(seen) == 7
    assert sum(seen) == sum(batch.loss_tokens for batch in batches)


@torch.no_grad()
def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_options_if_they_are_of_like_length():
    model = tiny_model()
    nn.init.zeros_(model.lm_head.weight)
    items = [item_of([1, 2, 3], [[4, 5]] * count, 0, RNG) for count in (2, 3, 5)]
    items = [type(item)(*list(vars(item).values())[:5], [6] * len(item.option_ids), 0) for item in items]
    assert float(mean_loss(model, batches_of(items))) == pytest.approx(np.mean(np.log([2, 3, 5])), rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
@torch.no_grad()
def test_loss_does_not_depend_on_the_batch_size(batch_size):
    model = tiny_model().eval()
    assert float(mean_loss(model, batches_of(batch_size=batch_size))) == pytest.approx(
        float(mean_loss(model, batches_of())), rel=1e-6
    )


@torch.no_grad()
def test_ranks_that_share_a_batch_add_up_to_it_and_part_no_item():
    model, (batch,) = tiny_model().eval(), batches_of(ITEMS[:3], batch_size=100)
    for world_size in (2, 3, 5):
        own = [rows_for(ProcessGroup(rank, world_size), batch) for rank in range(world_size)]
        losses = [float(summed_terms(model, one)) for one in own]
        assert sum(losses) == pytest.approx(float(choice_losses(model, batch).sum()), rel=1e-6)
        assert sum(one.terms for one in own) == 3


@torch.no_grad()
def test_batches_of_either_kind_are_told_apart():
    model, (batch,) = tiny_model().eval(), batches_of(ITEMS[:3], batch_size=100)
    plain = TokenBatch(batch.tokens_BS, batch.loss_BS)
    assert summed_terms(model, batch) == choice_losses(model, batch).sum()
    assert summed_terms(model, plain) == summed_loss(model, plain)[0]
    losses = text_losses(model, {"choice": [batch], "options": [plain]}, device="cpu")
    assert losses["choice"].tokens == 3
    assert losses["choice"].nats == pytest.approx(float(choice_losses(model, batch).sum()), rel=1e-6)
    assert losses["options"].tokens == batch.loss_tokens
    assert losses["options"].nats == pytest.approx(float(summed_loss(model, plain)[0]), rel=1e-6)
    assert math.isfinite(losses["choice"].nats)
