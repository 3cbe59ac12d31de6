"""The loss of multiple choice: minus the log of the normalised probability of the right option.

    f(item) = −log softmax_i(ℓ_i / b_i)[gold]

ℓ_i is the log-likelihood in nats of option i given the question, summed over its tokens, and b_i its UTF-8 bytes. It is
one number per item, whatever the length of its options; where these are equally likely by the byte it is ln(options).
All options pass through the model, so it costs as many passes as there are.

Its gradient is Σ_i (p_i − 1[i = gold]) ∇ℓ_i / b_i, p being the softmax: the options are weighed by each other, and a
batch has them all. Logits of a large vocabulary are never whole (`lm.output_head`).

Axes: B sequences, one per option, I items, O options of one item.
"""

import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch
from tikmix_pipeline.lm.loss import sequence_losses, summed_loss


def choice_losses(model: nn.Module, batch: ChoiceBatch) -> Tensor:
    """Return the loss in nats of every item of a batch, (I,)."""
    nats_B = sequence_losses(model, batch)
    scores_B = -nats_B / torch.from_numpy(batch.bytes_B).to(nats_B)
    by_item = zip(torch.split(scores_B, batch.options_I.tolist()), batch.gold_I.tolist(), strict=True)
    return torch.stack([torch.logsumexp(scores_O, dim=0) - scores_O[gold] for scores_O, gold in by_item])


def summed_terms(model: nn.Module, batch: TokenBatch) -> Tensor:
    """Return the loss of a batch of either kind, summed over its `terms`: items of multiple choice, else tokens."""
    if isinstance(batch, ChoiceBatch):
        return choice_losses(model, batch).sum()
    loss, _ = summed_loss(model, batch)
    return loss
