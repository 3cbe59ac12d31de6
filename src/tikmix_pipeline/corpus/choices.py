"""Multiple choice as a model reads it: all options of an item, each after the question, in one batch.

The loss of such an item is one number (`lm.choice`), so its options must not be parted: what deals a batch out, or cuts
it, does so by items. An option is tokenised and cut as an answer is (`corpus.tasks`).

Axes: B sequences, one per option, S tokens of a sequence, I items.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.tasks import TokenisedItem, item_batch

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChoiceBatch(TokenBatch):
    """Options of items, those of an item one after the other; the tokens of an option carry loss, its question none."""

    bytes_B: npt.NDArray[np.float64]
    """UTF-8 bytes of each option's text, of one that is cut in proportion to its tokens."""
    options_I: npt.NDArray[np.int64]
    """How many options an item has."""
    gold_I: npt.NDArray[np.int64]
    """Which of them is the right one, from 0."""

    @property
    def terms(self) -> int:
        """The number of losses that a mean loss is taken over: one per item."""
        return len(self.options_I)

    def part(self, start: int, stop: int) -> "ChoiceBatch":
        """Return at least one of the items, those from `start` up to `stop`, without padding that they all have."""
        ends = np.cumsum([0, *self.options_I])
        rows = slice(int(ends[start]), int(ends[stop]))
        width = int(np.flatnonzero(self.loss_BS[rows].any(axis=0))[-1]) + 1
        return ChoiceBatch(
            self.tokens_BS[rows, :width],
            self.loss_BS[rows, :width],
            self.bytes_B[rows],
            self.options_I[start:stop],
            self.gold_I[start:stop],
        )

    def items(self) -> list["ChoiceBatch"]:
        """Return every item by itself."""
        return [self.part(item, item + 1) for item in range(self.terms)]

    def answers(self) -> TokenBatch:
        """Return the right options alone."""
        rows_I = np.cumsum([0, *self.options_I[:-1]]) + self.gold_I
        return TokenBatch(self.tokens_BS[rows_I], self.loss_BS[rows_I])


def choice_batches(items: Sequence[TokenisedItem], *, context: int, batch_size: int, pad_id: int) -> list[ChoiceBatch]:
    """Batch items that offer a choice, those of like length together, in at most `batch_size` options, or of one item.

    Questions are cut from the left until question and option have at most `context` + 1 tokens; of an option that is
    longer than `context` by itself, the beginning is kept.
    """
    ordered = [items[number] for number in choices_by_length(items)]
    cut = sum(len(ids) > context for item in items for ids in item.option_ids)
    if cut:
        _logger.info("%d options are cut to their first %d tokens", cut, context)
    batches: list[list[TokenisedItem]] = []
    room = 0
    for item in ordered:
        if len(item.option_ids) > room:
            batches.append([])
            room = batch_size
        batches[-1].append(item)
        room -= len(item.option_ids)
    return [_choice_batch(batch, context, pad_id) for batch in batches]


def choices_by_length(items: Sequence[TokenisedItem]) -> list[int]:
    """Return the numbers of the items from the shortest to the longest: the order of those of `choice_batches`."""

    def length(number: int) -> int:
        return len(items[number].question_ids) + max(map(len, items[number].option_ids))

    return sorted(range(len(items)), key=length)


def _choice_batch(items: Sequence[TokenisedItem], context: int, pad_id: int) -> ChoiceBatch:
    options = [replace(item, answer_ids=ids) for item in items for ids in item.option_ids]
    sizes_B = np.array([size for item in items for size in item.option_bytes], dtype=np.float64)
    lengths_B = np.array([len(option.answer_ids) for option in options])
    batch = item_batch(options, context=context, loss="answer", pad_id=pad_id)
    return ChoiceBatch(
        batch.tokens_BS,
        batch.loss_BS,
        sizes_B * np.minimum(lengths_B, context) / lengths_B,
        np.array([len(item.option_ids) for item in items], dtype=np.int64),
        np.array([item.gold for item in items], dtype=np.int64),
    )


def pack_items(items: Sequence[ChoiceBatch], most_tokens: int) -> list[ChoiceBatch]:
    """Batch single items, those of like length together, in no more tokens than are given, padding included.

    An item that has more makes a batch of its own.
    """
    packed: list[list[ChoiceBatch]] = []
    for item in sorted(items, key=lambda item: item.tokens_BS.shape[1]):
        sequences = len(item) + (sum(map(len, packed[-1])) if packed else 0)
        if packed and sequences * item.tokens_BS.shape[1] <= most_tokens:
            packed[-1].append(item)
        else:
            packed.append([item])
    return [joined(batch) for batch in packed]


def joined(items: Sequence[ChoiceBatch]) -> ChoiceBatch:
    """Return items as one batch, padded to the longest with 0."""
    width = max(item.tokens_BS.shape[1] for item in items)
    pads = [((0, 0), (0, width - item.tokens_BS.shape[1])) for item in items]
    return ChoiceBatch(
        np.concatenate([np.pad(item.tokens_BS, pad) for item, pad in zip(items, pads, strict=True)]),
        np.concatenate([np.pad(item.loss_BS, pad) for item, pad in zip(items, pads, strict=True)]),
        np.concatenate([item.bytes_B for item in items]),
        np.concatenate([item.options_I for item in items]),
        np.concatenate([item.gold_I for item in items]),
    )
