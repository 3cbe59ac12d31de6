"""A branch of ranks is a chunk of as many steps: the same text, the same rates."""

from pathlib import Path

import pytest
from lm_examples import FIRST, MODEL, SECOND, train_parameters

from tikmix_pipeline.lm import on_ranks as training
from tikmix_pipeline.lm.branch import train_branch
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint
from tikmix_pipeline.lm.chunk import train_chunk
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.pipelines.influence import on_ranks


@pytest.fixture
def one_process_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(job, folder, found, keep):
        training.prepare(job, found, keep)
        state = train_chunk(
            Checkpoint(job.start),
            training.TokenShards.open(job.shards),
            job.mixture,
            model=job.model,
            train=job.train,
            schedule=job.schedule,
            seed=job.seed,
        )
        tokenizer = training.TokenShards.open(job.shards).tokenizer_folder
        save_checkpoint(state, folder, tokenizer)

    monkeypatch.setattr(training, "train_on_ranks", train)


@pytest.mark.usefixtures("one_process_for_all")
def test_it_ends_where_a_branch_of_one_process_ends(start, token_shards, tmp_path: Path):
    train = train_parameters()
    schedule = Schedule.of(train, 2)
    trained = train_chunk(start, token_shards, FIRST, model=MODEL, train=train, schedule=schedule, seed=0)
    checkpoint = save_checkpoint(trained, tmp_path / "round_0", token_shards.tokenizer_folder)
    how = {"steps": 3, "model": MODEL, "train": train, "schedule": schedule, "seed": 0, "description": "Branch"}
    alone = train_branch(checkpoint, token_shards, SECOND, **how)
    of_ranks = on_ranks.train_branch(checkpoint, token_shards, SECOND, **how)
    assert of_ranks.step == alone.step == trained.step + 3
    assert of_ranks.stream.state_dict() == alone.stream.state_dict()
    assert [r.learning_rate for r in of_ranks.records] == [r.learning_rate for r in alone.records][-3:]
    weights = dict(alone.model.named_parameters())
    assert all((weights[name] == values).all() for name, values in of_ranks.model.named_parameters())
    assert not (tmp_path / "round_0.ranks").exists()
