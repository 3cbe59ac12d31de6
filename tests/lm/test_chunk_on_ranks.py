"""Real processes, started as a run starts them: what they train is what one process trains."""

import pytest
from lm_examples import FIRST, MODEL, all_tensors, train_parameters

from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint
from tikmix_pipeline.lm.chunk import train_chunk
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.store.keyed import KeyedEntry

STEPS = 50


def test_two_ranks_train_what_one_process_trains(start, token_shards, tmp_path):
    train = train_parameters(chunk_tokens=64 * STEPS, save_every_steps=10)
    arguments = {"model": MODEL, "train": train, "schedule": Schedule.of(train, 1), "seed": 0}
    alone = train_chunk(start, token_shards, FIRST, **arguments)

    folder = tmp_path / "resume"
    two = train.model_copy(update={"world_size": 2, "shard": 2})
    together = train_chunk(start, token_shards, FIRST, **arguments | {"train": two}, resume=KeyedEntry(folder, "chunk"))

    assert [path.name for path in folder.glob("step_*")] == [f"step_{STEPS:08d}"]
    assert together.stream.state_dict() == alone.stream.state_dict()
    assert [record.step for record in together.records] == list(range(1, STEPS + 1))
    for one, other in zip(alone.records, together.records, strict=True):
        assert other.loss == pytest.approx(one.loss, abs=1e-6)
    ours, theirs = all_tensors(together), all_tensors(alone)
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 2e-5

    # the usual checkpoint, from which one process goes on
    saved = save_checkpoint(together, tmp_path / "round_0", token_shards.tokenizer_folder)
    assert {file.name for file in saved.folder.iterdir()} >= {"config.json", "model.safetensors"}
    assert Checkpoint(saved.folder).step == STEPS
