import dataclasses
import math

import pytest
import torch
from lm_examples import (
    FIRST,
    all_tensors,
    constant_schedule,
    differing,
    gpt2_model,
    new_state,
    tiny_model,
    train_parameters,
)

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.divergence import DivergedError
from tikmix_pipeline.lm.loss import summed_loss
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps


def train(state: TrainingState, steps: int, **changes: object) -> TrainingState:
    parameters = train_parameters(**changes)
    train_steps(state, parameters, Schedule.of(parameters, 2), last_step=state.step + steps)
    return state


def test_records_tell_the_loss_gradient_norm_rate_and_tokens_of_every_step(token_shards):
    parameters = train_parameters(learning_rate=0.01)
    state = train(new_state(token_shards, parameters), 3, learning_rate=0.01)
    model, stream = tiny_model(), new_state(token_shards, parameters).stream
    nats, tokens = summed_loss(model, TokenBatch.of_windows(stream.next_batch()))
    mean = nats / tokens
    mean.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    first = state.records[0]
    assert (first.loss, first.gradient_norm) == pytest.approx((mean.item(), norm), rel=1e-5)
    assert [record.step for record in state.records] == [1, 2, 3]
    assert [record.tokens for record in state.records] == [64, 128, 192]
    assert [record.learning_rate for record in state.records] == [0.005, 0.01, 0.01]


def test_model_learns_what_it_reads(token_shards):
    """Words of three domains are learned within 40 steps; uniform guessing costs log(320) = 5.77 nats."""
    state = new_state(token_shards, train_parameters())
    train_steps(state, train_parameters(learning_rate=0.01), constant_schedule(40), last_step=40)
    assert state.records[0].loss == pytest.approx(math.log(320), abs=0.1)
    assert state.records[-1].loss < 3.5


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 4, 9])
def test_accumulated_gradients_equal_those_of_one_batch(token_shards, micro_batch_size):
    """Three does not divide four: every token weighs the same all the same. Sums differ by float32 rounding."""
    whole = train(new_state(token_shards, train_parameters()), 4)
    parts = train(new_state(token_shards, train_parameters()), 4, micro_batch_size=micro_batch_size)
    for one, other in zip(whole.records, parts.records, strict=True):
        assert (other.loss, other.gradient_norm) == pytest.approx((one.loss, one.gradient_norm), rel=1e-5)
    for name, weight in whole.model.state_dict().items():
        # a rate of 3e-3 moved the weights by up to 1e-2
        torch.testing.assert_close(parts.model.state_dict()[name], weight, rtol=0, atol=2e-5)


def test_gradients_are_clipped_to_the_norm_given(token_shards, monkeypatch):
    state = new_state(token_shards, train_parameters())
    seen: list[float] = []
    take_step = state.optimizer.step

    def step(factor: float) -> None:
        seen.append(math.sqrt(sum(float(p.grad.square().sum()) for p in state.model.parameters())))
        take_step(factor)

    monkeypatch.setattr(state.optimizer, "step", step)
    train(state, 2, gradient_clip=0.01)
    assert seen == pytest.approx([0.01, 0.01], rel=1e-3)
    assert all(record.gradient_norm > 0.1 for record in state.records)


def break_the_loss(model: torch.nn.Module) -> None:
    model.get_output_embeddings().weight.data[5, 5] = math.nan


def break_the_gradient(model: torch.nn.Module) -> None:
    model.get_output_embeddings().weight.register_hook(lambda gradient: gradient * math.inf)


@pytest.mark.parametrize("damage", [break_the_loss, break_the_gradient])
def test_a_step_that_diverges_is_not_taken(token_shards, damage):
    state = train(new_state(token_shards, train_parameters()), 1)
    damage(state.model)
    before = all_tensors(state)
    with pytest.raises(TikmixError, match=r"diverged at step 2: loss .*train\.learning_rate \(now 0\.003\)"):
        train(state, 3)
    torch.testing.assert_close(all_tensors(state), before, rtol=0, atol=0, equal_nan=True)
    assert (state.step, len(state.records)) == (1, 1)


def test_training_that_stays_worse_than_guessing_ends_though_its_numbers_are_finite(token_shards):
    state = new_state(token_shards, train_parameters(learning_rate=1.0, warmup_tokens=0))
    with pytest.raises(DivergedError, match=r"diverged at step \d+: .* worse than guessing.*train\.learning_rate"):
        train(state, 60, learning_rate=1.0, warmup_tokens=0)
    assert all(math.isfinite(record.loss) for record in state.records)


def test_a_single_step_worse_than_guessing_is_no_divergence(token_shards):
    state = train(new_state(token_shards, train_parameters(save_every_steps=50)), 19)
    state.records[3] = dataclasses.replace(state.records[3], loss=1000.0)
    train(state, 2)
    assert state.step == 21


def test_bfloat16_trains_float32_weights_to_nearly_the_same_losses(token_shards):
    exact = train(new_state(token_shards, train_parameters()), 8)
    rounded = train(new_state(token_shards, train_parameters()), 8, precision="bfloat16")
    assert {tensor.dtype for tensor in all_tensors(rounded).values()} == {torch.float32}
    losses = [[record.loss for record in state.records] for state in (exact, rounded)]
    assert losses[1] != losses[0]
    # bfloat16 keeps 8 bits: 0.4 % per product, less in the mean over 64 tokens
    assert losses[1] == pytest.approx(losses[0], rel=3e-3)


def test_resume_points_are_saved_at_the_interval_but_not_at_the_end(token_shards):
    parameters, saved = train_parameters(save_every_steps=3), []
    state = new_state(token_shards, parameters)
    schedule = constant_schedule(20)
    train_steps(state, parameters, schedule, last_step=7, save=lambda under_way: saved.append(under_way.step))
    train_steps(state, parameters, schedule, last_step=12, save=lambda under_way: saved.append(under_way.step))
    assert saved == [3, 6, 9]


def test_dropout_depends_on_seed_and_step_alone(token_shards):
    """The process's own random numbers are neither used nor moved."""
    states = []
    for process_seed, seed in [(1, 0), (2, 0), (2, 5)]:
        torch.manual_seed(process_seed)
        expected = torch.random.get_rng_state()
        state = new_state(token_shards, train_parameters(), model=gpt2_model(token_shards.vocabulary_size))
        state.seed = seed
        states.append(train(state, 3))
        assert torch.equal(torch.random.get_rng_state(), expected)
    first, again, other = states
    assert differing(first, again) == []
    assert {"records", "transformer.wte.weight"} <= set(differing(first, other))
    plain = new_state(token_shards, train_parameters(), model=gpt2_model(token_shards.vocabulary_size, dropout=0.0))
    assert train(plain, 3).records != first.records


def test_training_reads_the_stream_once_per_step(token_shards):
    state = train(new_state(token_shards, train_parameters()), 5)
    untouched = new_state(token_shards, train_parameters()).stream
    for _ in range(5):
        untouched.next_batch()
    assert state.stream.state_dict() == untouched.state_dict()
    assert state.stream.weights == FIRST
