"""Next-token cross-entropy over the tokens that carry loss, and which of a batch are a process's own.

Axes: B sequences, S tokens of a sequence, P = S - 1 predictions, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.process_group import ProcessGroup


def device_of(model: torch.nn.Module) -> torch.device:
    """Return the device of the model's parameters."""
    return next(model.parameters()).device


def next_token_logits(model: torch.nn.Module, tokens_BS: Tensor) -> Tensor:
    """Return the logits (B, P, V) of tokens 1..S-1, each from the tokens before it, in float32.

    No attention mask is needed: padding stands on the right, where a causal model does not look.
    """
    logits: Tensor = model(input_ids=tokens_BS[:, :-1], use_cache=False).logits
    return logits.float() if logits.dtype != torch.float64 else logits


def summed_loss(model: torch.nn.Module, batch: TokenBatch) -> tuple[Tensor, int]:
    """Return the summed cross-entropy in nats over loss-carrying tokens, and how many there are."""
    device = device_of(model)
    tokens_BS = torch.from_numpy(batch.tokens_BS).to(device)
    logits_BPV = next_token_logits(model, tokens_BS)
    targets_BP = tokens_BS[:, 1:]
    if batch.loss_BS[:, 1:].all():
        return F.cross_entropy(logits_BPV.flatten(0, 1), targets_BP.flatten(), reduction="sum"), targets_BP.numel()
    carries_BP = torch.from_numpy(batch.loss_BS[:, 1:]).to(device)
    return F.cross_entropy(logits_BPV[carries_BP], targets_BP[carries_BP], reduction="sum"), batch.loss_tokens


def summed_losses(model: torch.nn.Module, batches: Sequence[TokenBatch]) -> list[float]:
    """Return the summed cross-entropy of batches that have their tokens in common and differ in what carries loss."""
    device = device_of(model)
    tokens_BS = torch.from_numpy(batches[0].tokens_BS).to(device)
    carries_BP = np.logical_or.reduce([batch.loss_BS[:, 1:] for batch in batches])
    anywhere_BP = torch.from_numpy(carries_BP).to(device)
    logits_NV = next_token_logits(model, tokens_BS)[anywhere_BP]
    losses_N = F.cross_entropy(logits_NV, tokens_BS[:, 1:][anywhere_BP], reduction="none").double()
    return [losses_N[torch.from_numpy(batch.loss_BS[:, 1:][carries_BP]).to(device)].sum().item() for batch in batches]


def rows_for(group: ProcessGroup, batch: TokenBatch) -> TokenBatch:
    """Return this process's sequences of a batch; where there are fewer than processes, perhaps one without loss.

    All processes run the model as often as each other, since they wait for each other inside it.
    """
    if group.world_size == 1:
        return batch
    start, stop = _bounds(group, batch)
    if start == stop:
        return TokenBatch(batch.tokens_BS[:1], np.zeros_like(batch.loss_BS[:1]))
    return TokenBatch(batch.tokens_BS[start:stop], batch.loss_BS[start:stop])


def tokens_for(group: ProcessGroup, batch: TokenBatch) -> slice:
    """Return which of a batch's loss-carrying tokens are in `rows_for`, counted through the whole batch."""
    start, stop = _bounds(group, batch)
    counts_B = batch.loss_BS.sum(axis=1)
    return slice(int(counts_B[:start].sum()), int(counts_B[:stop].sum()))


def _bounds(group: ProcessGroup, batch: TokenBatch) -> tuple[int, int]:
    return len(batch) * group.rank // group.world_size, len(batch) * (group.rank + 1) // group.world_size
