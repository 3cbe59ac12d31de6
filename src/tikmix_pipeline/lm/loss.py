"""Next-token cross-entropy over the tokens that carry loss, and which of a batch are a process's own.

Axes: B sequences, S tokens of a sequence, P = S - 1 predictions, N predictions that carry loss, V vocabulary, d width.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch
from tikmix_pipeline.distributed.process_group import ProcessGroup
from tikmix_pipeline.lm.output_head import computing, cross_entropies, divisible_head, raised, summed_cross_entropy


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters."""
    return next(model.parameters()).device


def next_token_logits(model: nn.Module, tokens_BS: Tensor) -> Tensor:
    """Return the logits (B, P, V) of tokens 1..S-1, each from the tokens before it, in float32.

    No attention mask is needed: padding stands on the right, where a causal model does not look.
    """
    return raised(_output(model, tokens_BS))


def hidden_states(model: nn.Module, tokens_BS: Tensor, head: nn.Linear) -> Tensor:
    """Return what a head (`output_head.divisible_head`) would make logits of, (B, P, d)."""
    return _computed_by_head(model, head, tokens_BS, lambda hidden: hidden)


def summed_loss(model: nn.Module, batch: TokenBatch) -> tuple[Tensor, int]:
    """Return the summed cross-entropy in nats over loss-carrying tokens, and how many there are."""
    device = device_of(model)
    tokens_BS = torch.from_numpy(batch.tokens_BS).to(device)
    # no copy where everything carries loss, as in training text
    carries_BP = None if batch.loss_BS[:, 1:].all() else torch.from_numpy(batch.loss_BS[:, 1:]).to(device)
    targets_N = _chosen(tokens_BS[:, 1:], carries_BP)
    head = divisible_head(model, len(targets_N))
    if head is None:
        logits_NV = _chosen(next_token_logits(model, tokens_BS), carries_BP)
        return F.cross_entropy(logits_NV, targets_N, reduction="sum"), len(targets_N)
    loss = _computed_by_head(
        model, head, tokens_BS, lambda hidden: summed_cross_entropy(head, _chosen(hidden, carries_BP), targets_N)
    )
    return loss, len(targets_N)


def token_losses(model: nn.Module, batches: Sequence[TokenBatch]) -> list[Tensor]:
    """Return the cross-entropy (N,) in nats of every token that carries loss, row by row, in float64.

    The batches have their tokens in common and differ in what carries loss.
    """
    device = device_of(model)
    tokens_BS = torch.from_numpy(batches[0].tokens_BS).to(device)
    carries_BP = np.logical_or.reduce([batch.loss_BS[:, 1:] for batch in batches])
    head = divisible_head(model, int(carries_BP.sum()))
    losses_N = _losses(model, head, tokens_BS, torch.from_numpy(carries_BP).to(device)).double()
    return [losses_N[torch.from_numpy(batch.loss_BS[:, 1:][carries_BP]).to(device)] for batch in batches]


def sequence_losses(model: nn.Module, batch: TokenBatch) -> Tensor:
    """Return the cross-entropy in nats of every sequence, (B), summed over its loss-carrying tokens."""
    device = device_of(model)
    carries_BP = batch.loss_BS[:, 1:]
    tokens_BS = torch.from_numpy(batch.tokens_BS).to(device)
    # few positions carry loss: logits are made of no others
    head = divisible_head(model, None)
    losses_N = _losses(model, head, tokens_BS, torch.from_numpy(carries_BP).to(device))
    # not by adding at indices, which on a GPU has no fixed order
    return torch.stack([losses_n.sum() for losses_n in torch.split(losses_N, carries_BP.sum(axis=1).tolist())])


def _losses(model: nn.Module, head: nn.Linear | None, tokens_BS: Tensor, carries_BP: Tensor) -> Tensor:
    targets_N = tokens_BS[:, 1:][carries_BP]
    if head is None:
        logits_NV = next_token_logits(model, tokens_BS)[carries_BP]
        return F.cross_entropy(logits_NV, targets_N, reduction="none")
    return _computed_by_head(
        model, head, tokens_BS, lambda hidden: cross_entropies(head, hidden[carries_BP], targets_N)
    )


def _output(model: nn.Module, tokens_BS: Tensor) -> Tensor:
    output: Tensor = model(input_ids=tokens_BS[:, :-1], use_cache=False).logits
    return output


def _computed_by_head(
    model: nn.Module, head: nn.Linear, tokens_BS: Tensor, function: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return what `function` makes of the final hidden states (B, P, d), in the place of logits."""
    with computing(head, function):
        return _output(model, tokens_BS)


def _chosen(values_BP: Tensor, carries_BP: Tensor | None) -> Tensor:
    """Return the values, with any more axes, at the positions that carry loss; at all of them without a mask."""
    return values_BP.flatten(0, 1) if carries_BP is None else values_BP[carries_BP]


def rows_for(group: ProcessGroup, batch: TokenBatch) -> TokenBatch:
    """Return this process's sequences of a batch; where there are fewer than processes, perhaps one without loss.

    The options of an item stay together. All processes run the model as often as each other, since they wait for each
    other inside it.
    """
    if group.world_size == 1:
        return batch
    start, stop = _bounds(group, batch.terms if isinstance(batch, ChoiceBatch) else len(batch))
    if start == stop:
        return TokenBatch(batch.tokens_BS[:1], np.zeros_like(batch.loss_BS[:1]))
    if isinstance(batch, ChoiceBatch):
        return batch.part(start, stop)
    return batch.rows(slice(start, stop))


def tokens_for(group: ProcessGroup, batch: TokenBatch) -> slice:
    """Return which of a batch's loss-carrying tokens are in `rows_for`, counted through the whole batch."""
    start, stop = _bounds(group, len(batch))
    counts_B = batch.loss_BS.sum(axis=1)
    return slice(int(counts_B[:start].sum()), int(counts_B[:stop].sum()))


def _bounds(group: ProcessGroup, count: int) -> tuple[int, int]:
    return count * group.rank // group.world_size, count * (group.rank + 1) // group.world_size
