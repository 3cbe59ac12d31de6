import numpy as np
from influence_oracle import random_batches

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.parts import deal_into_parts, take_evenly


def sequences(batches: list[TokenBatch]) -> list[tuple[int, ...]]:
    """Loss-carrying tokens with what stands before them, as hashable rows."""
    rows = []
    for batch in batches:
        for tokens, carries in zip(batch.tokens_BS, batch.loss_BS, strict=True):
            if carries.any():
                end = int(np.flatnonzero(carries)[-1]) + 1
                rows.append((*tokens[:end].tolist(), -1, *np.flatnonzero(carries).tolist()))
    return rows


def test_parts_hold_every_sequence_once_and_keep_its_loss():
    batches = random_batches(3, batches=4, sequences=5)
    parts = deal_into_parts(batches, 3)
    assert sorted(row for part in parts for row in sequences(part)) == sorted(sequences(batches))
    assert max(len(sequences(part)) for part in parts) - min(len(sequences(part)) for part in parts) <= 1
    assert all(len(batch) <= 5 for part in parts for batch in part)


def test_parts_of_a_sorted_set_see_its_whole_range():
    batches = [TokenBatch.of_windows(np.full((4, length), length)) for length in (2, 4, 6, 8)]
    for part in deal_into_parts(batches, 4):
        assert sorted(len(row) for row in sequences(part)) == sorted(length + length for length in (2, 4, 6, 8))


def test_padding_behind_the_last_loss_token_is_cut_and_silent_sequences_dropped():
    tokens = np.arange(24).reshape(3, 8)
    loss = np.zeros((3, 8), dtype=bool)
    loss[0, 2], loss[1, 3] = True, True
    (part,) = deal_into_parts([TokenBatch(tokens, loss)], 1)
    assert [batch.tokens_BS.shape for batch in part] == [(2, 4)]


def test_too_few_sequences_leave_parts_empty():
    assert [len(part) for part in deal_into_parts(random_batches(3, batches=1, sequences=2), 3)] == [1, 1, 0]


def test_take_evenly_gives_every_domain_its_share_rounded_up():
    domains = {name: random_batches(seed, batches=5, sequences=2, loss="all") for seed, name in enumerate("ab")}
    taken = take_evenly(domains, loss_tokens=2 * 15)
    assert sum(batch.loss_tokens for batch in taken) == 2 * 18  # 15 of 6 tokens a sequence takes three sequences
    assert sequences(taken) == sequences(domains["a"])[:3] + sequences(domains["b"])[:3]


def test_take_evenly_takes_all_of_a_small_domain():
    domains = {"small": random_batches(0, batches=1, sequences=1, loss="all"), "large": random_batches(1, batches=9)}
    taken = sequences(take_evenly(domains, loss_tokens=60))
    assert sequences(domains["small"])[0] in taken
    assert len(taken) > 5


def test_take_evenly_of_nothing_is_nothing():
    assert take_evenly({}, 10) == []
    assert take_evenly({"empty": []}, 10) == []
