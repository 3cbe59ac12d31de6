import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.phased import LARGEST_BLOCK, block_counts, block_grid, levanter_counts, weights_for
from tikmix_pipeline.export.syntax import shares_of

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=5)


@given(lengths, st.integers(1, 600))
@settings(deadline=None, max_examples=40)
def test_every_stage_starts_with_a_whole_block_and_holds_one(lengths, batch):
    bounds = [0, *(sum(lengths[: k + 1]) for k in range(len(lengths)))]
    grid = block_grid(bounds[:-1], bounds[-1], batch)
    assert 0 < grid.block <= LARGEST_BLOCK
    assert grid.start_steps[0] == 0
    assert all(step * batch % grid.block == 0 for step in grid.start_steps)
    assert all(before < after for before, after in pairwise(grid.start_steps))


@given(st.integers(2, 300), st.integers(1, 5), st.integers(1, 64))
@settings(deadline=None)
def test_rounds_of_one_length_keep_their_starts_and_their_blocks(length, rounds, batch):
    starts = [length * k for k in range(rounds)]
    grid = block_grid(starts, length * rounds, batch)
    assert grid.start_steps == tuple(starts)
    assert grid.block == block_grid([0], length, batch).block
    assert grid.block <= length * batch


def test_starts_without_a_common_divisor_move_to_blocks_of_usable_size():
    grid = block_grid([0, 1009, 2020], 3030, 4)
    assert grid.block == 4036
    assert grid.start_steps == (0, 1009, 2018)
    assert grid.block_before == 4036


def test_short_stages_move_too_rather_than_have_no_blocks():
    assert block_grid([0, 10, 21], 31, 8).start_steps == (0, 10, 20)
    assert block_grid([0, 20, 35], 50, 8).start_steps == (0, 20, 35)


def test_a_later_stage_leaves_earlier_starts_where_they_were():
    starts, end = [0, 50, 103, 150], 221
    for rounds in range(1, len(starts)):
        earlier = block_grid(starts[:rounds], starts[rounds], 32)
        assert block_grid(starts[: rounds + 1], [*starts, end][rounds + 1], 32).start_steps[:-1] == earlier.start_steps


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40).filter(lambda raw: sum(raw) > 1e-3),
    st.integers(100, 65535),
)
@settings(deadline=None)
def test_levanters_truncation_ends_at_the_counts_that_were_decided(raw, block):
    shares = shares_of({f"d{k:02}": weight for k, weight in enumerate(raw)})
    counts = block_counts(shares, block)
    assert sum(counts.values()) == block
    written = weights_for(counts, block)
    realised = levanter_counts(written, block)
    assert sum(written.values()) == 1
    assert all(count > 0 for count in realised.values())
    raised = sum(share * block < 1 for share in shares.values())
    most = 3 + raised
    assert all(abs(realised[name] - float(share) * block) <= most for name, share in shares.items())


@pytest.mark.parametrize("raw", [{"a": 1, "b": 1, "c": 1}, {"a": 5, "b": 6, "c": 6}, {"a": 6, "b": 7, "c": 6}])
def test_ties_of_the_largest_are_decided_rather_than_left_to_truncation(raw):
    block = 17 if sum(raw.values()) > 3 else 19
    counts = block_counts(shares_of(raw), block)
    realised = levanter_counts(weights_for(counts, block), block)
    assert max(abs(realised[name] - counts[name]) for name in raw) <= 2


def test_a_small_weight_gets_one_sequence():
    assert block_counts(shares_of({"web": 0.9999, "mail": 0.0001}), 1000) == {"mail": 1, "web": 999}


def test_more_domains_than_a_block_can_hold_are_refused():
    with pytest.raises(TikmixError, match=r"blocks, here of 8, and 5 domains have weight"):
        block_counts(shares_of(dict.fromkeys("abcde", 1.0)), 8)


def test_blocks_of_powers_of_two_are_exact():
    shares = shares_of({"a": 0.25, "b": 0.75})
    assert weights_for(block_counts(shares, 1024), 1024) == shares
    assert math.isclose(float(sum(shares.values())), 1)
