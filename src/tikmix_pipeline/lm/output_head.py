"""The output head and the loss behind it, some tokens at a time, so that logits of a large vocabulary are never whole.

Logits that are few are computed at once, as by the model itself. Of more than `MOST_LOGITS` the head is taken in chunks
of tokens. In float32 and float64 PyTorch's chunked `linear_cross_entropy` has both the loss and its gradients done with
a chunk before the next; in lower precision a chunk's logits are computed once more on the way back, since that function
would round the loss. Either way the working memory is that of one chunk.

The head is asked inside the model's own forward pass, where a model in shards has its weights together: its `forward`
is replaced for the pass by what is to be made of the final hidden states. That needs a head that is a plain linear
layer whose output is the logits. A model that caps or scales them afterwards keeps its logits whole.

Axes: B sequences, P positions, N tokens, d width, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

MOST_LOGITS = 1 << 24
"""Logits that are held at once, beside their gradients."""

_IS_PLAIN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def tokens_at_once(vocabulary: int) -> int:
    """Return the tokens of a chunk."""
    return max(1, MOST_LOGITS // vocabulary)


def divisible_head(model: nn.Module, tokens: int | None) -> nn.Linear | None:
    """Return the head of a model whose logits of so many tokens are too many to hold, if it can be taken in chunks.

    With None it is returned whatever the number: where most positions are not asked for, the head need not see them.
    """
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        return None
    is_divided = tokens is None or tokens > tokens_at_once(head.weight.shape[0])
    # ranks may have unequal numbers of tokens, and must run the model equally often
    if model not in _IS_PLAIN and (is_divided or torch.distributed.is_initialized()):
        _IS_PLAIN[model] = _gives_logits(model, head)
    return head if is_divided and _IS_PLAIN[model] else None


def _gives_logits(model: nn.Module, head: nn.Linear) -> bool:
    """Tell, from one token, whether what the head returns is what the model returns."""
    found: list[Tensor] = []
    handle = head.register_forward_hook(lambda _module, _args, output: found.append(output))
    try:
        with torch.no_grad(), torch.random.fork_rng():
            token_11 = torch.zeros(1, 1, dtype=torch.int64, device=head.weight.device)
            logits = model(input_ids=token_11, use_cache=False).logits
    finally:
        handle.remove()
    return len(found) == 1 and logits.data_ptr() == found[0].data_ptr()


@contextlib.contextmanager
def computing(head: nn.Linear, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a head, for the duration of the body, return what `function` makes of the hidden states (B, P, d)."""
    before = vars(head).get("forward")
    head.forward = function  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del head.forward
        if before is not None:
            head.forward = before  # type: ignore[method-assign]


def summed_cross_entropy(head: nn.Linear, hidden_Nd: Tensor, targets_N: Tensor) -> Tensor:
    """Return the summed cross-entropy in nats of a head's predictions, chunk by chunk, with its gradients."""
    size = tokens_at_once(head.weight.shape[0])
    is_cast = torch.is_autocast_enabled(hidden_Nd.device.type)
    if hidden_Nd.dtype in (torch.float32, torch.float64) and not is_cast:
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=size)
        loss: Tensor = F.linear_cross_entropy(
            hidden_Nd, head.weight, targets_N, linear_bias=head.bias, reduction="sum", options=options
        )
        return loss
    chunks = zip(torch.split(hidden_Nd, size), torch.split(targets_N, size), strict=True)
    losses = [
        checkpoint(_chunk_loss, some_nd, head.weight, head.bias, targets_n, use_reentrant=False)
        for some_nd, targets_n in chunks
    ]
    return torch.stack(losses).sum()


def _chunk_loss(hidden_nd: Tensor, weight_Vd: Tensor, bias_V: Tensor | None, targets_n: Tensor) -> Tensor:
    logits_nV = F.linear(hidden_nd, weight_Vd, bias_V).float()
    return F.cross_entropy(logits_nV, targets_n, reduction="sum")


def cross_entropies(head: nn.Linear, hidden_Nd: Tensor, targets_N: Tensor) -> Tensor:
    """Return the cross-entropy in nats of each of N predictions of a head, in float32 or better.

    For gradients a chunk's logits are computed once more on the way back.
    """
    size = tokens_at_once(head.weight.shape[0])
    chunks = zip(torch.split(hidden_Nd, size), torch.split(targets_N, size), strict=True)
    of_chunk: Callable[..., Tensor] = _chunk_losses
    if torch.is_grad_enabled():
        of_chunk = partial(checkpoint, _chunk_losses, use_reentrant=False)
    return torch.cat([of_chunk(some_nd, head.weight, head.bias, targets_n) for some_nd, targets_n in chunks])


def _chunk_losses(hidden_nd: Tensor, weight_Vd: Tensor, bias_V: Tensor | None, targets_n: Tensor) -> Tensor:
    return F.cross_entropy(raised(F.linear(hidden_nd, weight_Vd, bias_V)), targets_n, reduction="none")


def raised(values: Tensor) -> Tensor:
    """Return values of a precision below float32 in float32, and others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
