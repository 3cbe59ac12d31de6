"""Rows are dealt within one row of the quota, in every batch and in every prefix, exactly."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.corpus.row_counts import RowCounts

TAKES_ROWS_BACK = [80, 3, 1, 3, 13, 5, 2], 2
FALLS_BEHIND = [3, 1, 1, 1, 40, 40, 1, 3, 3, 3, 1, 40, 40], 3


def shares_of(parts):
    return [part / sum(parts) for part in parts]


def free_largest_remainder(parts, batch_size, batches):
    """Give every domain the floor of quota plus carry, and the rest by remainder."""
    quotas = [Fraction(batch_size * part, sum(parts)) for part in parts]
    carried = [Fraction(0)] * len(parts)
    for _ in range(batches):
        owed = [quota + carry for quota, carry in zip(quotas, carried, strict=True)]
        rows = [value.__floor__() for value in owed]
        by_remainder = sorted(range(len(parts)), key=lambda domain: rows[domain] - owed[domain])
        for domain in by_remainder[: batch_size - sum(rows)]:
            rows[domain] += 1
        carried = [value - count for value, count in zip(owed, rows, strict=True)]
        yield rows


def held_largest_remainder(parts, batch_size, batches):
    """Give every domain the floor of its quota, and the rest to those that are owed most."""
    quotas = [Fraction(batch_size * part, sum(parts)) for part in parts]
    carried = [Fraction(0)] * len(parts)
    for _ in range(batches):
        rows = [quota.__floor__() for quota in quotas]
        owed = [quota + carry - count for quota, carry, count in zip(quotas, carried, rows, strict=True)]
        for domain in sorted(range(len(parts)), key=lambda domain: -owed[domain])[: batch_size - sum(rows)]:
            rows[domain] += 1
            owed[domain] -= 1
        carried = owed
        yield rows


def largest_lag(dealt, parts, batch_size):
    """Return how far the rows of any domain over any prefix of batches are off their quota."""
    sums, lag = [0] * len(parts), Fraction(0)
    for batch, rows in enumerate(dealt, start=1):
        for domain, part in enumerate(parts):
            sums[domain] += rows[domain]
            lag = max(lag, abs(sums[domain] - Fraction(batch * batch_size * part, sum(parts))))
    return lag


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.one_of(st.just(0), st.integers(1, 60)), min_size=1, max_size=14).filter(any),
    batch_size=st.integers(1, 40),
)
def test_rows_are_within_one_of_the_quota_in_every_batch_and_every_prefix(parts, batch_size):
    row_counts = RowCounts(shares_of(parts), batch_size)
    dealt = [row_counts.deal() for _ in range(60)]
    slack = Fraction(1, 10**6)  # weights are read to 12 decimals
    for rows in dealt:
        assert sum(rows) == batch_size
        for count, part in zip(rows, parts, strict=True):
            quota = Fraction(batch_size * part, sum(parts))
            assert (quota - slack).__floor__() <= count <= (quota + slack).__ceil__()
            assert part or not count
    assert largest_lag(dealt, parts, batch_size) < 1 + slack


def test_keeps_both_promises_where_largest_remainder_breaks_one():
    assert min(min(rows) for rows in free_largest_remainder(*TAKES_ROWS_BACK, 60)) < 0
    assert largest_lag(held_largest_remainder(*FALLS_BEHIND, 100), *FALLS_BEHIND) > 1.4
    for parts, batch_size in (TAKES_ROWS_BACK, FALLS_BEHIND):
        row_counts = RowCounts(shares_of(parts), batch_size)
        dealt = [row_counts.deal() for _ in range(100)]
        assert min(min(rows) for rows in dealt) >= 0
        assert largest_lag(dealt, parts, batch_size) < 1


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.integers(0, 30), min_size=2, max_size=8).filter(any),
    batch_size=st.integers(1, 20),
    before=st.integers(0, 40),
)
def test_dealing_goes_on_from_the_rows_dealt_as_if_never_stopped(parts, batch_size, before):
    weights = shares_of(parts)
    row_counts = RowCounts(weights, batch_size)
    dealt = [row_counts.deal() for _ in range(before)]
    sums = [sum(rows[domain] for rows in dealt) for domain in range(len(parts))]
    resumed = RowCounts(weights, batch_size, batches=before, dealt=sums)
    assert [row_counts.deal() for _ in range(40)] == [resumed.deal() for _ in range(40)]


@pytest.mark.parametrize("weights", [[0.1] * 10, [0.25, 0.75], [0.6, 0.4, 0.0]])
def test_whole_quotas_are_dealt_exactly(weights):
    row_counts = RowCounts(weights, 20)
    for _ in range(50):
        assert row_counts.deal() == [round(20 * weight) for weight in weights]


def test_a_tiny_weight_gets_its_rows_in_the_long_run():
    row_counts = RowCounts([0.999, 0.001], 4)
    assert sum(row_counts.deal()[1] for _ in range(5000)) == 20
