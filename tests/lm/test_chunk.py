import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_examples import (
    FIRST,
    MODEL,
    SECOND,
    all_tensors,
    differing,
    gpt2_model,
    initial_checkpoint,
    new_state,
    tiny_model,
    train_parameters,
)

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint, save_model
from tikmix_pipeline.lm.chunk import restore_state, train_chunk
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.parameters import TrainParameters
from tikmix_pipeline.store.keyed import KeyedEntry

OPTIMIZERS = pytest.mark.parametrize("optimizer", ["adamw", "muon"])


class KilledError(Exception):
    """Stands for the end of the process."""


def chunk(start: Checkpoint, shards: TokenShards, mixture=FIRST, train: TrainParameters | None = None, **arguments):
    train = train or train_parameters()
    defaults = {"model": MODEL, "train": train, "schedule": Schedule.of(train, 2), "seed": 0}
    return train_chunk(start, shards, mixture, **defaults | arguments)


def uninterrupted(start: Checkpoint, shards: TokenShards, train: TrainParameters, steps: int) -> TrainingState:
    """Train in one go, in memory: the weights change after the first chunk, nothing is saved or loaded."""
    state = new_state(shards, train, model=start.model(MODEL))
    first = min(steps, train.steps_per_chunk)
    train_steps(state, train, Schedule.of(train, 2), last_step=first)
    if steps > first:
        state.records.clear()
        state.stream.set_weights(SECOND)
        train_steps(state, train, Schedule.of(train, 2), last_step=steps)
    return state


@dataclass(frozen=True)
class Watched(KeyedEntry):
    """A folder that keeps the last resume point, notes its step, and ends the training at one of them."""

    key: str = "this chunk"
    killed_at: int = 0
    seen: list[int] = field(default_factory=list)

    def save(self, write: Callable[[Path], Any]) -> None:
        super().save(write)
        self.seen.append(Checkpoint(self.folder).step)
        if self.seen[-1] == self.killed_at:
            raise KilledError


@OPTIMIZERS
@pytest.mark.parametrize("steps_before", [1, 3, 5])
def test_steps_save_restore_and_the_rest_equal_one_run(start, token_shards, tmp_path, optimizer, steps_before):
    train = train_parameters(optimizer=optimizer)
    state = new_state(token_shards, train, model=start.model(MODEL))
    train_steps(state, train, Schedule.of(train, 2), last_step=steps_before)
    saved = save_checkpoint(state, tmp_path / "saved", token_shards.tokenizer_folder)
    restored = restore_state(saved, token_shards, SECOND, model=MODEL, train=train, seed=0)
    train_steps(restored, train, Schedule.of(train, 2), last_step=6)
    assert differing(restored, uninterrupted(start, token_shards, train, 6)) == []


@OPTIMIZERS
def test_two_chunks_with_a_change_of_mixture_equal_one_run(start, token_shards, tmp_path, optimizer):
    train = train_parameters(optimizer=optimizer)
    first = chunk(start, token_shards, FIRST, train)
    assert differing(first, uninterrupted(start, token_shards, train, 6)) == []
    saved = save_checkpoint(first, tmp_path / "round_0", token_shards.tokenizer_folder)
    second = chunk(saved, token_shards, SECOND, train)
    assert differing(second, uninterrupted(start, token_shards, train, 12)) == []
    assert [record.step for record in second.records] == [7, 8, 9, 10, 11, 12]


@OPTIMIZERS
@pytest.mark.parametrize("killed_at", [8, 10])
def test_a_chunk_killed_half_way_resumes_to_the_same_bits(start, token_shards, tmp_path, optimizer, killed_at):
    train = train_parameters(optimizer=optimizer)
    first = chunk(start, token_shards, FIRST, train)
    saved = save_checkpoint(first, tmp_path / "round_0", token_shards.tokenizer_folder)
    resume = tmp_path / "round_1.resume"
    with pytest.raises(KilledError):
        chunk(saved, token_shards, SECOND, train, resume=Watched(resume, killed_at=killed_at))
    assert Checkpoint(resume).step == killed_at
    resumed = chunk(saved, token_shards, SECOND, train, resume=KeyedEntry(resume, "this chunk"))
    assert differing(resumed, uninterrupted(start, token_shards, train, 12)) == []


def test_a_model_with_dropout_resumes_to_the_same_bits(token_shards, tmp_path):
    start = save_model(gpt2_model(token_shards.vocabulary_size), tmp_path / "gpt2", token_shards.tokenizer_folder)
    whole = chunk(start, token_shards)
    with pytest.raises(KilledError):
        chunk(start, token_shards, resume=Watched(tmp_path / "resume", killed_at=4))
    torch.manual_seed(12345)
    assert differing(whole, chunk(start, token_shards, resume=KeyedEntry(tmp_path / "resume", "this chunk"))) == []


def test_saving_resume_points_changes_nothing(start, token_shards, tmp_path):
    resume = Watched(tmp_path / "resume")
    assert differing(chunk(start, token_shards, resume=resume), chunk(start, token_shards)) == []
    assert resume.seen == [2, 4]


def test_same_seed_same_weights_other_seed_other_data_and_weights(token_shards, tmp_path):
    def run(name: str, seed: int, order: int) -> TrainingState:
        return chunk(initial_checkpoint(token_shards, tmp_path / name, seed=seed), token_shards, seed=order)

    first, again = run("first", 0, 0), run("again", 0, 0)
    other_start, other_order = run("other_start", 1, 0), run("other_order", 0, 1)
    assert differing(first, again) == []
    for other in (other_start, other_order):
        assert {"records", "model.embed_tokens.weight"} <= set(differing(first, other))


def test_an_equal_mixture_in_the_next_chunk_leaves_no_seam(start, token_shards, tmp_path):
    saved = save_checkpoint(chunk(start, token_shards), tmp_path / "round_0", token_shards.tokenizer_folder)
    two = chunk(saved, token_shards)
    one = chunk(start, token_shards, schedule=Schedule.of(train_parameters(chunk_tokens=768), 1))
    assert torch.equal(two.model.lm_head.weight, one.model.lm_head.weight)


def test_a_checkpoint_from_elsewhere_is_trained_on(token_shards, tmp_path):
    """Any family that AutoModelForCausalLM reads, saved by save_pretrained with its tokenizer beside it."""
    theirs = gpt2_model(token_shards.vocabulary_size, dropout=0.0)
    theirs.save_pretrained(tmp_path / "theirs")
    for file in token_shards.tokenizer_folder.iterdir():
        (tmp_path / "theirs" / file.name).write_bytes(file.read_bytes())
    state = chunk(Checkpoint(tmp_path / "theirs"), token_shards)
    assert state.step == 6
    assert state.records[-1].loss < state.records[0].loss
    assert not torch.equal(state.model.transformer.wte.weight, theirs.transformer.wte.weight)


def refused(monkeypatch: pytest.MonkeyPatch, message: str, *arguments, **keywords) -> None:
    """Expect a refusal before anything is trained."""
    monkeypatch.setattr("tikmix_pipeline.lm.chunk.train_steps", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(TikmixError, match=message):
        chunk(*arguments, **keywords)


def test_a_mixture_of_other_domains_is_refused(start, token_shards, monkeypatch):
    refused(monkeypatch, "'prosa', which is no domain. Did you mean 'prose'", start, token_shards, {"prosa": 1.0})


def test_another_tokenizer_is_refused(start, token_shards, monkeypatch):
    tokenizer = start.folder / "tokenizer.json"
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:-1]
    tokenizer.write_text(json.dumps(content), encoding="utf-8")
    refused(monkeypatch, "has another tokenizer", start, token_shards)


def test_a_context_longer_than_the_model_takes_is_refused(start, token_shards, monkeypatch):
    train = train_parameters(context=32)
    refused(
        monkeypatch, r"train\.context is 32, but the model in .* takes at most 16", start, token_shards, train=train
    )


def test_a_vocabulary_smaller_than_the_corpus_is_refused(token_shards, tmp_path, monkeypatch):
    start = save_model(tiny_model(200), tmp_path / "small", token_shards.tokenizer_folder)
    refused(
        monkeypatch,
        r"corpus\.domains\.\w+ uses the token id \d+, but the model in .* knows 200 .*has 320",
        start,
        token_shards,
    )


def test_a_device_that_is_not_there_is_refused(start, token_shards, monkeypatch):
    train = train_parameters(device="cuda:63")
    refused(monkeypatch, "Device 'cuda:63' cannot be used", start, token_shards, train=train)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "its seed is 0, and here it is 1"),
        ({"train": train_parameters(batch_size=8)}, "its batch_size is 4, and here it is 8"),
        ({"train": train_parameters(optimizer="muon")}, r"Set train\.optimizer"),
    ],
)
def test_going_on_with_other_parameters_is_refused(start, token_shards, tmp_path, monkeypatch, change, message):
    saved = save_checkpoint(chunk(start, token_shards), tmp_path / "round_0", token_shards.tokenizer_folder)
    refused(monkeypatch, message, saved, token_shards, SECOND, **change)


def test_divergence_leaves_the_resume_point(start, token_shards, tmp_path):
    """The rate is absurd, so the loss overflows within the chunk."""
    train = train_parameters(learning_rate=1e18, warmup_tokens=0, save_every_steps=1)
    resume = tmp_path / "resume"
    with pytest.raises(TikmixError, match=r"diverged at step \d.*rounds before are kept"):
        chunk(start, token_shards, train=train, resume=KeyedEntry(resume, "this chunk"))
    assert Checkpoint(resume).step >= 1
    state = restore_state(Checkpoint(resume), token_shards, FIRST, model=MODEL, train=train, seed=0)
    assert all(tensor.isfinite().all() for tensor in all_tensors(state).values())
