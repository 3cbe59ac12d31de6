import pytest
from lm_examples import train_parameters

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.schedule import Schedule, horizon_after

# 64 tokens per step, 6 steps per chunk


def factors(rounds: int, **changes: float) -> list[float]:
    schedule = Schedule.of(train_parameters(final_learning_rate_fraction=0.2, **changes), rounds)
    return [schedule.factor(step) for step in range(schedule.total_steps)]


def test_rate_rises_stays_and_falls_to_the_exact_values():
    rates = factors(2, warmup_tokens=4 * 64, decay_tokens=4 * 64)
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:8] == [1.0] * 4
    assert rates[8:] == pytest.approx([0.8, 0.6, 0.4, 0.2], abs=1e-15)
    assert rates[-1] == 0.2


@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_rate_falls_at_the_end_of_the_last_round_only(rounds):
    rates = factors(rounds, warmup_tokens=2 * 64, decay_tokens=3 * 64)
    assert rates[:2] == [0.5, 1.0]
    assert rates[2 : 6 * rounds - 3] == [1.0] * (6 * rounds - 5)
    assert rates[6 * rounds - 3] < 1
    assert rates[-1] == 0.2


def test_a_decay_longer_than_the_last_chunk_begins_in_the_one_before():
    rates = factors(2, warmup_tokens=0, decay_tokens=8 * 64)
    assert rates[:4] == [1.0] * 4
    assert rates[4:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], abs=1e-15)


def test_without_warm_up_and_decay_the_rate_is_constant():
    assert factors(2, warmup_tokens=0, decay_tokens=0) == [1.0] * 12


def test_warm_up_and_decay_may_fill_the_whole_run():
    rates = factors(1, warmup_tokens=2 * 64, decay_tokens=4 * 64)
    assert rates == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2], abs=1e-15)


def test_a_finished_schedule_stays_at_its_end():
    schedule = Schedule.of(train_parameters(final_learning_rate_fraction=0.2), 1)
    assert schedule.factor(schedule.total_steps + 10) == 0.2


def test_token_amounts_are_rounded_up_to_whole_steps():
    schedule = Schedule.of(train_parameters(chunk_tokens=385, warmup_tokens=65, decay_tokens=1), 2)
    lengths = (schedule.chunk_steps, schedule.total_steps, schedule.warmup_steps, schedule.decay_steps)
    assert lengths == (7, 14, 2, 1)


def test_warm_up_and_decay_longer_than_the_run_are_refused():
    message = r"train\.warmup_tokens \(128\) and train\.decay_tokens \(320\).*1 rounds x train\.chunk_tokens \(384\)"
    with pytest.raises(TikmixError, match=message):
        Schedule.of(train_parameters(decay_tokens=320), 1)
    Schedule.of(train_parameters(decay_tokens=320), 2)


def test_sum_of_the_rates_is_that_of_the_steps():
    schedule = Schedule.of(train_parameters(final_learning_rate_fraction=0.2, warmup_tokens=4 * 64), 2)
    assert schedule.rate_sum(0, 6) == pytest.approx(sum(schedule.factor(step) for step in range(6)), rel=1e-15)
    assert schedule.rate_sum(3, 3) == 0


def test_horizon_is_the_sum_of_the_learning_rates_of_the_chunk_to_come():
    """6 steps per chunk: at the full rate, and in the last chunk down to 0.2 of it."""
    train = train_parameters(learning_rate=0.5, final_learning_rate_fraction=0.2, warmup_tokens=0, decay_tokens=4 * 64)
    assert horizon_after(train, rounds=3, round_number=0) == pytest.approx(0.5 * 6)
    assert horizon_after(train, rounds=3, round_number=1) == pytest.approx(0.5 * (2 + 0.8 + 0.6 + 0.4 + 0.2))


def test_after_the_last_round_one_more_is_taken_to_follow():
    train = train_parameters(learning_rate=0.5, warmup_tokens=0, decay_tokens=4 * 64)
    assert horizon_after(train, rounds=2, round_number=1) == horizon_after(train, rounds=3, round_number=1)


def test_annealing_falls_linearly_from_the_rate_it_starts_at_to_zero():
    schedule = Schedule(chunk_steps=10, total_steps=40, warmup_steps=4, decay_steps=5, final_fraction=0.1)
    annealed = schedule.annealed(20, 4)
    assert [annealed.factor(step) for step in range(20, 24)] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert [annealed.factor(step) for step in range(20)] == [schedule.factor(step) for step in range(20)]


@pytest.mark.parametrize("warmup", [0, 1, 5, 9])
@pytest.mark.parametrize("decay", [0, 1, 7, 30])
def test_what_counts_between_two_steps_has_the_same_factors_to_the_bit(warmup, decay):
    schedule = Schedule(chunk_steps=10, total_steps=40, warmup_steps=warmup, decay_steps=decay, final_fraction=1 / 3)
    for first in range(45):
        for last in range(first, 46):
            within = schedule.within(first, last)
            steps = range(first, last)
            assert [within.factor(step) for step in steps] == [schedule.factor(step) for step in steps]
            assert within.within(first, last) == within


def test_between_two_steps_a_change_of_the_far_end_changes_nothing():
    longer = Schedule(chunk_steps=10, total_steps=80, warmup_steps=5, decay_steps=20, final_fraction=0.5)
    shorter = Schedule(chunk_steps=10, total_steps=40, warmup_steps=9, decay_steps=10, final_fraction=0.1)
    assert longer.within(8, 30) == shorter.within(8, 30)  # warm, and not falling yet
    assert longer.within(7, 30) != shorter.within(7, 30)
    assert longer.within(8, 31) != shorter.within(8, 31)
