"""Resume points inside a chunk: what several processes kept is taken up by any number of them."""

from functools import partial

import pytest
from lm_examples import FIRST, MODEL, differing, tied_model, train_parameters

from tikmix_pipeline.distributed.job import Job
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import save_checkpoint, save_model
from tikmix_pipeline.lm.chunk import _train_as_rank, run_chunk
from tikmix_pipeline.lm.resume import clear_unfinished, find_point, is_point, lay_out, save_ranks_point
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.store.keyed import KeyedEntry


class KilledError(Exception):
    """Stands for the end of the process."""


def chunk(start, shards, **arguments):
    train = train_parameters()
    defaults = {"model": MODEL, "train": train, "schedule": Schedule.of(train, 1), "seed": 0}
    return run_chunk(start, shards, FIRST, **defaults | arguments)


def keep_until(step, write):
    """Return a `save` that ends the training once it has kept the state at `step`."""

    def save(state):
        write(state)
        if state.step == step:
            raise KilledError

    return save


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_process_goes_on_from_a_point_of_ranks(start, token_shards, tmp_path, mesh_of_one, optimizer):
    train = train_parameters(optimizer=optimizer)
    folder = tmp_path / "resume"
    with pytest.raises(KilledError):
        chunk(
            start,
            token_shards,
            train=train,
            mesh=mesh_of_one,
            save=keep_until(4, partial(save_ranks_point, folder=folder)),
        )
    assert [path.name for path in folder.iterdir()] == ["step_00000004"]  # the one before is gone
    resumed = chunk(start, token_shards, train=train, resume=folder)
    alone = chunk(start, token_shards, train=train)
    assert [record.loss for record in resumed.records] == pytest.approx([r.loss for r in alone.records], abs=1e-6)
    assert resumed.stream.state_dict() == alone.stream.state_dict()


def test_ranks_go_on_from_a_checkpoint_of_one_process(start, token_shards, tmp_path, mesh_of_one, monkeypatch):
    folder = tmp_path / "resume"
    kept = KeyedEntry(folder, "chunk")

    def keep(state):
        kept.save(partial(save_checkpoint, state, tokenizer=token_shards.tokenizer_folder))

    with pytest.raises(KilledError):
        chunk(start, token_shards, save=keep_until(4, keep))
    job = Job(_train_as_rank, {"folder": folder, "mixture": FIRST}, train_parameters())
    lay_out(job, kept)
    assert Job.read(folder).arguments == {"folder": str(folder), "mixture": FIRST}
    of_ranks = chunk(start, token_shards, mesh=mesh_of_one, resume=folder)
    save_ranks_point(of_ranks, folder)
    assert is_point(find_point(folder))
    resumed = chunk(start, token_shards, resume=folder)
    assert [record.step for record in resumed.records] == [1, 2, 3, 4, 5, 6]
    alone = chunk(start, token_shards)
    assert [record.loss for record in resumed.records] == pytest.approx([r.loss for r in alone.records], abs=1e-6)
    # prepared again, as a run that goes on does, nothing is lost
    monkeypatch.setattr(KeyedEntry, "save", lambda *_: pytest.fail("the folder was replaced"))
    lay_out(job, kept)
    assert is_point(find_point(folder))


def test_tied_weights_and_recomputed_activations(token_shards, tmp_path, mesh_of_one):
    start = save_model(tied_model(token_shards.vocabulary_size), tmp_path / "tied", token_shards.tokenizer_folder)
    train = train_parameters(activation_checkpointing=True, micro_batch_size=2)
    save_ranks_point(chunk(start, token_shards, train=train, mesh=mesh_of_one), tmp_path / "resume")
    taken_up = chunk(start, token_shards, resume=tmp_path / "resume")
    alone = chunk(start, token_shards)
    assert [record.loss for record in taken_up.records] == pytest.approx([r.loss for r in alone.records], abs=1e-6)
    assert differing(chunk(start, token_shards, train=train_parameters(activation_checkpointing=True)), alone) == []


def test_bfloat16_is_near_and_keeps_weights_in_float32(start, token_shards, tmp_path, mesh_of_one):
    train = train_parameters(precision="bfloat16")
    state = chunk(start, token_shards, train=train, mesh=mesh_of_one)
    assert {str(parameter.dtype) for parameter in state.model.parameters()} == {"torch.float32"}
    alone = chunk(start, token_shards)
    assert [r.loss for r in state.records] != [r.loss for r in alone.records]
    assert [r.loss for r in state.records] == pytest.approx([r.loss for r in alone.records], abs=0.02)


def test_a_half_written_point_is_none(start, token_shards, tmp_path, mesh_of_one):
    folder = tmp_path / "resume"
    point = save_ranks_point(chunk(start, token_shards, mesh=mesh_of_one), folder)
    (folder / "step_00000099").mkdir()
    assert find_point(folder) == point
    clear_unfinished(folder)
    assert [path.name for path in folder.iterdir()] == [point.name]


def test_a_damaged_point_says_what_to_delete(start, token_shards, tmp_path, mesh_of_one):
    folder = tmp_path / "resume"
    point = save_ranks_point(chunk(start, token_shards, mesh=mesh_of_one), folder)
    (point / ".metadata").write_bytes(b"nothing")
    with pytest.raises(TikmixError, match=r"cannot be read.*Delete"):
        chunk(start, token_shards, resume=folder)
