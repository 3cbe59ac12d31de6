"""Sets of sequences cut into equal parts, whose spread gives a mean gradient its standard error."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import ceil

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError

_Row = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def deal_into_parts(batches: Sequence[TokenBatch], parts: int) -> list[list[TokenBatch]]:
    """Deal the sequences out like cards, so that every part sees the whole range of a set sorted by length.

    Batches inside a part are no larger than the largest given. Sequences without loss are dropped, and what follows
    the last loss-carrying token of a sequence is cut: a causal model does not look there.

    Returns:
        `parts` lists of batches; a list is empty when there are fewer sequences than parts.
    """
    rows = list(sequences(batches))
    batch_size = max((len(batch) for batch in batches), default=1)
    return [_collate(rows[part::parts], batch_size) for part in range(parts)]


def deal_sets(side: str, sets: Mapping[str, Sequence[TokenBatch]], parts: int) -> dict[str, list[list[TokenBatch]]]:
    """Deal every set into parts.

    Args:
        side: what the sets are called in error messages.
        sets: batches by name.
        parts: `influence.micro_batches`.

    Raises:
        TikmixError: there is no set, a set has fewer sequences than parts, or there are fewer than two parts.
    """
    if not sets:
        raise TikmixError(f"There is no {side} to measure influence with. Name at least one.")
    if parts < 2:
        raise TikmixError("influence.micro_batches must be at least 2: one part has no spread to take an error from.")
    dealt = {name: deal_into_parts(batches, parts) for name, batches in sets.items()}
    for name, batches in sets.items():
        if not all(dealt[name]):
            raise TikmixError(
                f"{side} '{name}' has {len(list(sequences(batches)))} sequences with loss, fewer than "
                f"influence.micro_batches = {parts}. Give it more data, or lower influence.micro_batches."
            )
    return dealt


def take_evenly(domains: Mapping[str, Sequence[TokenBatch]], loss_tokens: int) -> list[TokenBatch]:
    """Take the first sequences of every domain until it holds its equal share of `loss_tokens`, rounded up.

    A domain that has fewer gives all it has. The curvature is fitted on these: on every domain alike, whatever the
    mixture is.
    """
    batch_size = max((len(batch) for batches in domains.values() for batch in batches), default=1)
    share = loss_tokens / max(len(domains), 1)
    taken: list[_Row] = []
    for batches in domains.values():
        rows = list(sequences(batches))
        before = np.cumsum([0] + [int(loss_S.sum()) for _, loss_S in rows[:-1]])
        taken += [row for row, tokens in zip(rows, before, strict=False) if tokens < share]
    return _collate(taken, batch_size)


def sequences(batches: Sequence[TokenBatch]) -> Iterator[_Row]:
    """Yield tokens and loss mask of every sequence with loss, up to its last loss-carrying token."""
    for batch in batches:
        for tokens_S, loss_S in zip(batch.tokens_BS, batch.loss_BS, strict=True):
            if loss_S.any():
                end = int(np.flatnonzero(loss_S)[-1]) + 1
                yield tokens_S[:end], loss_S[:end]


def _collate(rows: Sequence[_Row], batch_size: int) -> list[TokenBatch]:
    batches = ceil(len(rows) / batch_size)
    cuts = [round(len(rows) * batch / batches) for batch in range(batches + 1)] if batches else [0]
    return [_pad(rows[start:end]) for start, end in pairwise(cuts)]


def _pad(rows: Sequence[_Row]) -> TokenBatch:
    longest = max(len(tokens_S) for tokens_S, _ in rows)
    tokens_BS = np.zeros((len(rows), longest), dtype=np.int64)
    loss_BS = np.zeros((len(rows), longest), dtype=np.bool_)
    for row, (tokens_S, loss_S) in enumerate(rows):
        tokens_BS[row, : len(tokens_S)] = tokens_S
        loss_BS[row, : len(loss_S)] = loss_S
    return TokenBatch(tokens_BS, loss_BS)
