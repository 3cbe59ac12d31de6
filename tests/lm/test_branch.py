import numpy as np
import pytest
import torch
from lm_examples import FIRST, MODEL, SECOND, train_parameters

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.branch import train_branch, windows_in_reach
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint
from tikmix_pipeline.lm.chunk import restore_state, run_chunk, train_chunk
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import DivergedError, train_steps

TRAIN = train_parameters()
SCHEDULE = Schedule.of(TRAIN, 3)
STEPS = 4


@pytest.fixture
def trained(start: Checkpoint, token_shards: TokenShards, tmp_path) -> Checkpoint:
    """A checkpoint at the end of a chunk under the mixture FIRST."""
    state = train_chunk(start, token_shards, FIRST, model=MODEL, train=TRAIN, schedule=SCHEDULE, seed=0)
    return save_checkpoint(state, tmp_path / "trained", token_shards.tokenizer_folder)


def branch(checkpoint: Checkpoint, shards: TokenShards, mixture=SECOND, **arguments):
    settings = {"steps": STEPS, "model": MODEL, "train": TRAIN, "schedule": SCHEDULE, "seed": 0}
    return train_branch(checkpoint, shards, mixture, **settings | arguments).model


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def read_by(monkeypatch, checkpoint: Checkpoint, shards: TokenShards, mixture, **arguments) -> dict[str, list[bytes]]:
    """Train a branch and return the windows it read of each domain, in order."""
    batches: list[np.ndarray] = []
    next_batch = MixtureStream.next_batch

    def noting(stream: MixtureStream, *share: int) -> np.ndarray:
        batches.append(next_batch(stream, *share))
        return batches[-1]

    with monkeypatch.context() as patch:
        patch.setattr(MixtureStream, "next_batch", noting)
        branch(checkpoint, shards, mixture, **arguments)
    rows = np.concatenate(batches)
    read: dict[str, list[bytes]] = {}
    for domain in shards.domains:
        windows = shards.windows(domain, TRAIN.context)
        of_domain = {row.tobytes() for row in windows.take(np.arange(len(windows)))}
        read[domain] = [row.tobytes() for row in rows if row.tobytes() in of_domain]
    return read


def test_branch_of_n_steps_is_training_n_steps_by_hand(trained, token_shards):
    state = restore_state(trained, token_shards, SECOND, model=MODEL, train=TRAIN, seed=0)
    state.stream.set_weights(SECOND)
    train_steps(state, TRAIN, SCHEDULE, last_step=6 + STEPS)
    assert same_weights(branch(trained, token_shards), state.model)


def test_first_replicate_under_the_old_mixture_is_what_training_would_have_done(trained, token_shards):
    chunk = train_chunk(trained, token_shards, FIRST, model=MODEL, train=TRAIN, schedule=SCHEDULE, seed=0)
    assert same_weights(branch(trained, token_shards, FIRST, steps=6), chunk.model)


def test_branch_leaves_the_checkpoint_as_it_was(trained, token_shards):
    assert same_weights(branch(trained, token_shards), branch(trained, token_shards))
    assert trained.step == 6


def test_branches_of_one_replicate_read_one_order_of_each_domain(trained, token_shards, monkeypatch):
    for replicate in (0, 1):
        first, second = (
            read_by(monkeypatch, trained, token_shards, mixture, replicate=replicate) for mixture in (FIRST, SECOND)
        )
        for domain in token_shards.domains:
            shared = min(len(first[domain]), len(second[domain]))
            assert shared > 0
            assert first[domain][:shared] == second[domain][:shared]


def test_replicates_read_text_that_no_other_replicate_reads(trained, token_shards, monkeypatch):
    reach = windows_in_reach([FIRST, SECOND], steps=STEPS, batch_size=TRAIN.batch_size)
    for chosen in (None, reach):
        read = [
            read_by(monkeypatch, trained, token_shards, mixture, replicate=replicate, reach=chosen)
            for mixture in (FIRST, SECOND)
            for replicate in range(3)
        ]
        for domain in token_shards.domains:
            for one in range(3):
                for other in {0, 1, 2} - {one}:
                    assert not set(read[one][domain]) & set(read[3 + other][domain])


def test_reach_is_what_the_greediest_mixture_can_read(trained, token_shards, monkeypatch):
    reach = windows_in_reach([FIRST, SECOND], steps=STEPS, batch_size=4)
    assert reach == {"code": 9, "prose": 6, "verse": 13}
    assert windows_in_reach([{"code": 1.0}], steps=STEPS, batch_size=4) == {"code": 16}
    for mixture in (FIRST, SECOND):
        read = read_by(monkeypatch, trained, token_shards, mixture)
        assert all(len(read[domain]) <= reach[domain] for domain in reach)


def test_diverging_branch_says_so(trained, token_shards):
    wild = train_parameters(learning_rate=1e18, warmup_tokens=0)
    with pytest.raises(DivergedError, match="diverged at step"):
        branch(trained, token_shards, train=wild)


def test_mixture_of_other_domains_is_refused(trained, token_shards):
    with pytest.raises(TikmixError, match="Did you mean 'prose'"):
        branch(trained, token_shards, {"prosa": 1.0})


def test_a_branch_of_ranks_is_a_chunk_of_as_many_steps(start, token_shards, tmp_path, monkeypatch):
    """The same text, the same rates; here this process stands for all ranks."""
    train = train_parameters()
    schedule = Schedule.of(train, 2)
    trained = train_chunk(start, token_shards, FIRST, model=MODEL, train=train, schedule=schedule, seed=0)
    checkpoint = save_checkpoint(trained, tmp_path / "round_0", token_shards.tokenizer_folder)
    how = {"steps": 3, "model": MODEL, "schedule": schedule, "seed": 0, "description": "Branch"}
    alone = train_branch(checkpoint, token_shards, SECOND, **how, train=train)

    def work(job, folder):
        rank = {"start": checkpoint, "shards": token_shards, "train": train, "save": None, "resume": None}
        arguments = {name: value for name, value in job.arguments.items() if name != "folder"}
        save_checkpoint(run_chunk(**arguments | rank), folder, token_shards.tokenizer_folder)

    monkeypatch.setattr("tikmix_pipeline.lm.chunk.run_ranks", work)
    monkeypatch.setattr("tikmix_pipeline.lm.chunk.require_done", lambda *_: None)
    of_ranks = train_branch(checkpoint, token_shards, SECOND, **how, train=train.model_copy(update={"world_size": 2}))
    assert of_ranks.step == alone.step == trained.step + 3
    assert of_ranks.stream.state_dict() == alone.stream.state_dict()
    assert [r.learning_rate for r in of_ranks.records] == [r.learning_rate for r in alone.records][-3:]
    weights = dict(alone.model.named_parameters())
    assert all((weights[name] == values).all() for name, values in of_ranks.model.named_parameters())
    assert not (tmp_path / "round_0.ranks").exists()
