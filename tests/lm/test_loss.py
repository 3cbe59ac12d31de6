import numpy as np
import pytest
import torch
from lm_examples import gpt2_model, tied_model, tiny_model
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.lm.loss import next_token_logits, summed_loss


def random_batch(seed: int = 0, sequences: int = 3, length: int = 10) -> TokenBatch:
    generator = np.random.default_rng(seed)
    tokens_BS = generator.integers(0, 320, (sequences, length))
    loss_BS = generator.random((sequences, length)) < 0.4
    loss_BS[:, 0] = False
    return TokenBatch(tokens_BS, loss_BS)


def one_by_one(model: nn.Module, batch: TokenBatch) -> float:
    """Add -log p(token | tokens before it), each from a forward pass of its own."""
    nats = 0.0
    for tokens_S, loss_S in zip(batch.tokens_BS, batch.loss_BS, strict=True):
        for position in np.flatnonzero(loss_S):
            logits_V = model(input_ids=torch.from_numpy(tokens_S[None, :position])).logits[0, -1].double()
            nats -= float(logits_V.log_softmax(0)[tokens_S[position]])
    return nats


@pytest.mark.parametrize("build", [tiny_model, tied_model, gpt2_model])
@torch.no_grad()
def test_loss_is_the_surprise_at_each_token_given_those_before_it(build):
    model, batch = build().eval(), random_batch()
    nats, tokens = summed_loss(model, batch)
    assert tokens == batch.loss_BS.sum() > 0
    # float32 sums of a dozen terms of about 6 nats
    assert float(nats) == pytest.approx(one_by_one(model, batch), rel=1e-5)


@torch.no_grad()
def test_windows_of_training_text_take_the_loss_of_all_tokens_but_the_first():
    model, tokens_BS = tiny_model(), random_batch().tokens_BS
    nats, tokens = summed_loss(model, TokenBatch.of_windows(tokens_BS))
    assert tokens == 3 * 9
    assert float(nats) == pytest.approx(one_by_one(model, TokenBatch.of_windows(tokens_BS)), rel=1e-5)


@pytest.mark.parametrize("build", [tiny_model, gpt2_model])
@torch.no_grad()
def test_padding_on_the_right_changes_nothing(build):
    model, batch = build().eval(), random_batch()
    padded = TokenBatch(np.pad(batch.tokens_BS, ((0, 0), (0, 5))), np.pad(batch.loss_BS, ((0, 0), (0, 5))))
    expected, found = summed_loss(model, batch), summed_loss(model, padded)
    assert found[1] == expected[1]
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-6)


def test_low_precision_is_raised_to_float32_and_float64_is_kept():
    tokens_BS = torch.from_numpy(random_batch().tokens_BS)
    model = tiny_model()
    for given, found in [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")]:
        logits_BPV = next_token_logits(model.to(getattr(torch, given)), tokens_BS)
        assert logits_BPV.dtype == getattr(torch, found)
        assert logits_BPV.shape == (3, 9, 320)
