"""Batches of multiple choice never part the options of an item, however they are cut."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from choice_examples import choice_items

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch, choice_batches, pack_items
from tikmix_pipeline.corpus.tasks import TokenisedItem, item_batches

CONTEXT = 16
ITEMS = choice_items(13)


def batches_of(items: list[TokenisedItem] = ITEMS, batch_size: int = 8) -> list[ChoiceBatch]:
    return choice_batches(items, context=CONTEXT, batch_size=batch_size, pad_id=0)


Option = tuple[tuple[int, ...], tuple[int, ...], float]


def options_of(batch: TokenBatch, sizes: np.ndarray) -> list[Option]:
    rows = zip(batch.tokens_BS, batch.loss_BS, sizes.tolist(), strict=True)
    return [(tuple(tokens[tokens != 0].tolist()), tuple(tokens[loss].tolist()), size) for tokens, loss, size in rows]


def held(batches: list[ChoiceBatch]) -> list[tuple[tuple[Option, ...], int]]:
    """Return what each item of some batches is: its options in their order, and which is right."""
    return sorted(
        (tuple(options_of(item, item.bytes_B)), int(item.gold_I[0])) for batch in batches for item in batch.items()
    )


def asked(item: TokenisedItem) -> tuple[tuple[Option, ...], int]:
    options = [
        ((*item.question_ids, *ids), tuple(ids), float(size))
        for ids, size in zip(item.option_ids, item.option_bytes, strict=True)
    ]
    assert item.gold is not None
    return tuple(options), item.gold


@pytest.mark.parametrize("batch_size", [1, 4, 8, 100])
def test_batches_hold_every_item_once_with_loss_on_its_options(batch_size):
    batches = batches_of(batch_size=batch_size)
    assert held(batches) == sorted(map(asked, ITEMS))
    assert sum(batch.terms for batch in batches) == len(ITEMS)
    assert all(len(batch) <= batch_size or batch.terms == 1 for batch in batches)


def test_packed_again_they_are_the_same_items_in_no_more_tokens_than_are_given():
    items = [item for batch in batches_of() for item in batch.items()]
    packed = pack_items(items[::-1], 60)
    assert held(packed) == sorted(map(asked, ITEMS))
    assert all(batch.tokens_BS.size <= 60 or batch.terms == 1 for batch in packed)
    assert len(packed) < len(items)


def test_a_part_has_no_padding_that_all_of_it_has():
    (batch,) = batches_of(batch_size=100)
    shortest = batch.part(0, 1)
    assert shortest.tokens_BS.shape[1] < batch.tokens_BS.shape[1]
    assert shortest.loss_BS[:, -1].any()


def test_right_options_alone_are_the_items_with_their_answers():
    (found,) = (batch.answers() for batch in batches_of(batch_size=100))
    (expected,) = item_batches(ITEMS, context=CONTEXT, batch_size=100, loss="answer", pad_id=0)
    zeros = np.zeros(len(ITEMS))
    assert sorted(options_of(found, zeros)) == sorted(options_of(expected, zeros))


def test_options_are_cut_as_answers_are_and_their_bytes_with_them(caplog):
    long = replace(ITEMS[0], question_ids=list(range(1, 21)), option_ids=[list(range(30, 50)), [7, 8]], gold=1)
    long = replace(long, option_bytes=[40, 9])
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        (batch,) = batches_of([long])
    assert caplog.messages == ["1 options are cut to their first 16 tokens"]
    for row, ids in enumerate(long.option_ids):
        alone = replace(long, answer_ids=ids)
        (expected,) = item_batches([alone], context=CONTEXT, batch_size=1, loss="answer", pad_id=0)
        assert batch.tokens_BS[row].tolist() == expected.tokens_BS[0].tolist()
        assert batch.loss_BS[row].tolist() == expected.loss_BS[0].tolist()
    assert batch.bytes_B.tolist() == [40 * 16 / 20, 9]
