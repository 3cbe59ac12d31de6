"""Mean gradients of a set of sequences: `g = (1/N) Σ_n ∇ℓ_n` over the N tokens of the set that carry loss.

One plain backward pass per batch and no per-example gradient. The unit, nats per loss-carrying token, is what makes
sets of unequal size comparable, and it is the unit of every curvature in this room. Sums are in float32, or float64 for
float64 weights, whatever lower precision a batch's gradient comes in. Memory: one copy of the trainable parameters, for
the sum, to which each parameter's gradient is added as it comes; of several processes each has its shard, and a second
one for a batch's gradient.

A set is dealt into equal chunks, each with a mean gradient of its own: their spread gives the set's its standard error.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.loss import rows_for, summed_loss

Gradient = dict[str, Tensor]
"""One tensor per trainable parameter, of its shape, under its first name in `named_parameters()`."""

_PASS_TOKENS = 64
"""What a pass costs beyond its tokens, in tokens: on two cores 40 for 135M parameters, some hundred for a million."""

_Row = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class MeanGradient:
    """The mean over `loss_tokens` loss-carrying tokens of the gradient and of the loss, in nats per token."""

    gradient: Gradient
    loss: float
    loss_tokens: int


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what a gradient is taken by, or raise a TikmixError; a tied parameter appears once, by its first name."""
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise TikmixError("The model has no trainable parameter: set requires_grad on those influence is measured by.")
    return trainable


def sum_dtype(parameter: Tensor) -> torch.dtype:
    """Return the precision that gradients by a parameter are summed and kept in."""
    return torch.promote_types(parameter.dtype, torch.float32)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout and its like off, and give every module its own mode back at the end."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training


class GradientSum:
    """The gradient of the loss of one batch after another, in the memory of one copy of the trainable parameters."""

    def __init__(self, model: nn.Module, mesh: Mesh = SINGLE_MESH) -> None:
        """Start at zero; the processes of a copy share every batch, and the gradient is spread as the model is."""
        self._sums = {
            name: (parameter, torch.zeros_like(parameter, dtype=sum_dtype(parameter)))
            for name, parameter in trainable_parameters(model).items()
        }
        self._mesh = mesh
        self._loss, self._loss_tokens = 0.0, 0

    def add(self, loss: Tensor, loss_tokens: int) -> None:
        """Send a summed loss back; `loss_tokens` is how many tokens of the batch carry loss, on whichever rank."""
        self._mesh.add_gradients(loss, dict(self._sums.values()))
        self._loss += loss.item()
        self._loss_tokens += loss_tokens

    def mean(self, of: str) -> MeanGradient:
        """Return the mean over all tokens so far; the sums are spent. Errors are those of `mean_gradient`."""
        loss = sum(self._mesh.shard.all_gather_object(self._loss))
        if self._loss_tokens == 0:
            raise TikmixError(f"The {of} has no token that carries loss. Give it data, or leave it out.")
        mean = {name: total.div_(self._loss_tokens) for name, (_, total) in self._sums.items()}
        _require_finite({name: self._mesh.local_tensor(values)[0] for name, values in mean.items()}, of)
        return MeanGradient(mean, loss / self._loss_tokens, self._loss_tokens)


def mean_gradient(
    model: nn.Module,
    batches: Iterable[TokenBatch],
    *,
    of: str,
    advance: Callable[[int], object] | None = None,
    mesh: Mesh = SINGLE_MESH,
) -> MeanGradient:
    """Average the gradient of the next-token loss over the loss-carrying tokens of `batches`, however these are cut.

    The model's `.grad`, `requires_grad` and training mode are left as they were.

    Args:
        of: what the set is called in error messages.
        advance: called with the number of loss-carrying tokens of each batch done.
        mesh: the processes of a copy share the sequences of each batch, and the gradient is spread as the model is.

    Raises:
        TikmixError: the set has no token that carries loss, or its gradient is not finite.
    """
    total = GradientSum(model, mesh)
    with evaluation_mode(model), torch.enable_grad():
        for batch in batches:
            loss, _ = summed_loss(model, rows_for(mesh.shard, batch))
            total.add(loss, batch.loss_tokens)
            if advance is not None:
                advance(batch.loss_tokens)
    return total.mean(of)


def _require_finite(gradient: Gradient, of: str) -> None:
    # the sum shows what is not finite in one pass; where it overflows itself, each number is looked at
    suspected = [name for name, values in gradient.items() if not values.sum().isfinite()]
    broken = [name for name in suspected if not gradient[name].isfinite().all()]
    if broken:
        raise TikmixError(
            f"The gradient of the {of} is not finite in {broken[0]} ({len(broken)} of {len(gradient)} parameters). "
            "The checkpoint has diverged, or its weights are in a precision too low to measure at: load it in float32."
        )


def deal_into_chunks(batches: Sequence[TokenBatch], chunks: int) -> list[list[TokenBatch]]:
    """Deal the sequences out like cards, so that every chunk sees the whole range of a set sorted by length.

    Batches inside a chunk have sequences of like length, and no more tokens than the largest given, padding included;
    there are none when there are fewer sequences than chunks. Sequences without loss are dropped, and what follows the
    last loss-carrying token of a sequence is cut: a causal model does not look there.
    """
    rows = list(sequences(batches))
    return [_collate(rows[chunk::chunks], _largest(batches)) for chunk in range(chunks)]


def set_name(side: str, name: str) -> str:
    """Return what a set of sequences is called in messages."""
    return f"{side} '{name}'"


def deal_sets(side: str, sets: Mapping[str, Sequence[TokenBatch]], chunks: int) -> dict[str, list[list[TokenBatch]]]:
    """Deal every set into `influence.micro_batches` chunks; `side` is what sets are called in error messages.

    Raises:
        TikmixError: there is no set, a set has fewer sequences than chunks, or there are fewer than two chunks.
    """
    if not sets:
        raise TikmixError(f"There is no {side} to measure influence with. Name at least one.")
    if chunks < 2:
        raise TikmixError("influence.micro_batches must be at least 2: one chunk has no spread to take an error from.")
    dealt = {name: deal_into_chunks(batches, chunks) for name, batches in sets.items()}
    for name, batches in sets.items():
        if not all(dealt[name]):
            raise TikmixError(
                f"{set_name(side, name)} has {len(list(sequences(batches)))} sequences with loss, fewer than "
                f"influence.micro_batches = {chunks}. Give it more data, or lower influence.micro_batches."
            )
    return dealt


def take_evenly(domains: Mapping[str, Sequence[TokenBatch]], loss_tokens: int) -> list[TokenBatch]:
    """Take the first sequences of every domain until it holds its equal share of `loss_tokens`, rounded up.

    A domain that has fewer gives all it has.
    """
    return take_first(domains, dict.fromkeys(domains, loss_tokens / max(len(domains), 1)))


def take_first(domains: Mapping[str, Sequence[TokenBatch]], loss_tokens: Mapping[str, float]) -> list[TokenBatch]:
    """Take the first sequences of every domain until it holds its `loss_tokens`, rounded up, or all it has."""
    taken: list[_Row] = []
    for name, batches in domains.items():
        rows = list(sequences(batches))
        before = np.cumsum([0] + [int(loss_S.sum()) for _, loss_S in rows[:-1]])
        taken += [row for row, tokens in zip(rows, before, strict=False) if tokens < loss_tokens[name]]
    return _collate(taken, max(map(_largest, domains.values()), default=0))


def sequences(batches: Sequence[TokenBatch]) -> Iterator[_Row]:
    """Yield tokens and loss mask of every sequence with loss, up to its last loss-carrying token."""
    for batch in batches:
        for tokens_S, loss_S in zip(batch.tokens_BS, batch.loss_BS, strict=True):
            if loss_S.any():
                end = int(np.flatnonzero(loss_S)[-1]) + 1
                yield tokens_S[:end], loss_S[:end]


def _largest(batches: Sequence[TokenBatch]) -> int:
    """Return the most tokens of a batch, padding included."""
    return max((batch.tokens_BS.size for batch in batches), default=0)


def _collate(rows: Sequence[_Row], most_tokens: int) -> list[TokenBatch]:
    """Batch sequences, those of like length together, in no more tokens each than are given, padding included."""
    ordered = sorted(rows, key=lambda row: len(row[0]))
    return [_pad(ordered[start:end]) for start, end in pairwise(_cuts([len(row[0]) for row in ordered], most_tokens))]


def _cuts(lengths: Sequence[int], most_tokens: int) -> list[int]:
    """Return where ascending lengths are cut, both ends included, so that padding and passes together cost least."""
    if not lengths:
        return [0]
    if lengths[0] == lengths[-1]:
        batches = ceil(len(lengths) / max(1, most_tokens // lengths[0]))
        return [round(len(lengths) * batch / batches) for batch in range(batches + 1)]
    cost, begins = [0], [0]
    for end, longest in enumerate(lengths, 1):
        first = max(0, end - max(1, most_tokens // longest))
        costs = {start: cost[start] + (end - start) * longest + _PASS_TOKENS for start in range(first, end)}
        begins.append(min(costs, key=lambda start: costs[start]))
        cost.append(costs[begins[-1]])
    cuts = [len(lengths)]
    while cuts[-1]:
        cuts.append(begins[cuts[-1]])
    return cuts[::-1]


def _pad(rows: Sequence[_Row]) -> TokenBatch:
    longest = max(len(tokens_S) for tokens_S, _ in rows)
    tokens_BS = np.zeros((len(rows), longest), dtype=np.int64)
    loss_BS = np.zeros((len(rows), longest), dtype=np.bool_)
    for row, (tokens_S, loss_S) in enumerate(rows):
        tokens_BS[row, : len(tokens_S)] = tokens_S
        loss_BS[row, : len(loss_S)] = loss_S
    return TokenBatch(tokens_BS, loss_BS)
