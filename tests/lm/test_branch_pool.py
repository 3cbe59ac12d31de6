import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from choice_examples import choice_items
from lm_examples import FIRST, MODEL, SECOND, train_parameters

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import choice_batches
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.worker_pool import Died
from tikmix_pipeline.lm import branch_pool
from tikmix_pipeline.lm.branch_pool import (
    Branch,
    BranchSetting,
    Failure,
    run_branches,
    train_branch,
    windows_in_reach,
)
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint
from tikmix_pipeline.lm.chunk import restore_state, run_chunk, train_chunk
from tikmix_pipeline.lm.divergence import DivergedError
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import train_steps

TRAIN = train_parameters()
SCHEDULE = Schedule.of(TRAIN, 3)
STEPS = 4


@pytest.fixture
def trunk(start: Checkpoint, token_shards: TokenShards, tmp_path) -> Checkpoint:
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


def test_branch_of_n_steps_is_training_n_steps_by_hand(trunk, token_shards):
    state = restore_state(trunk, token_shards, SECOND, model=MODEL, train=TRAIN, seed=0)
    state.stream.set_weights(SECOND)
    train_steps(state, TRAIN, SCHEDULE, last_step=6 + STEPS)
    assert same_weights(branch(trunk, token_shards), state.model)


def test_first_replicate_under_the_old_mixture_is_what_training_would_have_done(trunk, token_shards):
    chunk = train_chunk(trunk, token_shards, FIRST, model=MODEL, train=TRAIN, schedule=SCHEDULE, seed=0)
    assert same_weights(branch(trunk, token_shards, FIRST, steps=6), chunk.model)


def test_branch_leaves_the_checkpoint_as_it_was(trunk, token_shards):
    assert same_weights(branch(trunk, token_shards), branch(trunk, token_shards))
    assert trunk.step == 6


def test_branches_of_one_replicate_read_one_order_of_each_domain(trunk, token_shards, monkeypatch):
    for replicate in (0, 1):
        first, second = (
            read_by(monkeypatch, trunk, token_shards, mixture, replicate=replicate) for mixture in (FIRST, SECOND)
        )
        for domain in token_shards.domains:
            shared = min(len(first[domain]), len(second[domain]))
            assert shared > 0
            assert first[domain][:shared] == second[domain][:shared]


def test_replicates_read_text_that_no_other_replicate_reads(trunk, token_shards, monkeypatch):
    reach = windows_in_reach([FIRST, SECOND], steps=STEPS, batch_size=TRAIN.batch_size)
    for chosen in (None, reach):
        read = [
            read_by(monkeypatch, trunk, token_shards, mixture, replicate=replicate, reach=chosen)
            for mixture in (FIRST, SECOND)
            for replicate in range(3)
        ]
        for domain in token_shards.domains:
            for one in range(3):
                for other in {0, 1, 2} - {one}:
                    assert not set(read[one][domain]) & set(read[3 + other][domain])


def test_reach_is_what_the_greediest_mixture_can_read(trunk, token_shards, monkeypatch):
    reach = windows_in_reach([FIRST, SECOND], steps=STEPS, batch_size=4)
    assert reach == {"code": 9, "prose": 6, "verse": 13}
    assert windows_in_reach([{"code": 1.0}], steps=STEPS, batch_size=4) == {"code": 16}
    for mixture in (FIRST, SECOND):
        read = read_by(monkeypatch, trunk, token_shards, mixture)
        assert all(len(read[domain]) <= reach[domain] for domain in reach)


def test_a_branch_of_a_share_reads_that_share_of_every_domain_and_no_more(trunk, token_shards, monkeypatch):
    for mixture in (FIRST, SECOND):
        read = read_by(monkeypatch, trunk, token_shards, mixture, share=0.1)
        for domain in token_shards.domains:
            assert len({*read[domain]}) <= max(1, round(0.1 * len(token_shards.windows(domain, TRAIN.context))))


def test_diverging_branch_says_so(trunk, token_shards):
    wild = train_parameters(learning_rate=1e18, warmup_tokens=0)
    with pytest.raises(DivergedError, match="diverged at step"):
        branch(trunk, token_shards, train=wild)


def test_mixture_of_other_domains_is_refused(trunk, token_shards):
    with pytest.raises(TikmixError, match="Did you mean 'prose'"):
        branch(trunk, token_shards, {"prosa": 1.0})


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


BRANCHES = [
    Branch(name, mixture, replicate) for replicate in range(2) for name, mixture in {"a": FIRST, "b": SECOND}.items()
]


@pytest.fixture
def texts(token_shards) -> dict[str, list[TokenBatch]]:
    windows = {domain: token_shards.windows(domain, 16, "heldout") for domain in ("code", "verse")}
    return {domain: [TokenBatch.of_windows(w.take(torch.arange(3).numpy()))] for domain, w in windows.items()}


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The branches that are trained from here on."""
    names: list[str] = []
    losses_after = branch_pool._losses_after

    def noting(setting, texts, branch):
        names.append(f"{branch.name}{branch.replicate}")
        return losses_after(setting, texts, branch)

    monkeypatch.setattr(branch_pool, "_losses_after", noting)
    return names


Fail = Callable[[BaseException], list[None]]


@pytest.fixture
def failing(monkeypatch) -> Fail:
    """Let the branch `b` of replicate 0 end in an error; returns what counts its attempts."""

    def install(error: BaseException) -> list[None]:
        attempts: list[None] = []
        losses_after = branch_pool._losses_after

        def fail(setting, texts, branch):
            if (branch.name, branch.replicate) == ("b", 0):
                attempts.append(None)
                raise error
            return losses_after(setting, texts, branch)

        monkeypatch.setattr(branch_pool, "_losses_after", fail)
        return attempts

    return install


def run(setting, texts, folder, branches=BRANCHES, *, key="code", workers=1):
    return run_branches(setting, branches, texts, folder=folder, key=key, workers=workers)


def test_results_are_the_same_bits_in_processes_and_in_place(setting, texts, tmp_path):
    alone = run(setting, texts, tmp_path / "alone")
    pool = run(setting, texts, tmp_path / "pool", workers=2)
    assert pool == alone
    assert [result.branch for result in pool] == BRANCHES
    assert {name: loss.tokens for name, loss in pool[0].losses.items()} == {"code": 48, "verse": 48}
    assert pool[0].losses["code"].nats != pool[1].losses["code"].nats != pool[3].losses["code"].nats


def test_a_branch_is_scored_anew_on_the_same_options_with_another_right_one(setting, tmp_path, trained):
    (batch,) = choice_batches(choice_items(4), context=16, batch_size=100, pad_id=0)
    other = dataclasses.replace(batch, gold_I=(batch.gold_I + 1) % batch.options_I)
    found = [run(setting, {"poll": [one]}, tmp_path, BRANCHES[:1]) for one in (batch, batch, other)]
    assert trained == ["a0", "a0"]
    assert found[0] == found[1] != found[2]
    assert found[0][0].losses["poll"].tokens == 4


def test_losses_of_single_tokens_are_kept_where_they_are_asked_for(setting, texts, tmp_path, trained):
    by_token = dataclasses.replace(setting, by_token=True)
    (plain,), (each,), again = (run(one, texts, tmp_path, BRANCHES[:1]) for one in (setting, by_token, by_token))
    assert (trained, again) == (["a0", "a0"], [each])
    assert plain.losses == {name: dataclasses.replace(loss, by_token=[]) for name, loss in each.losses.items()}
    losses = each.losses.values()
    assert [sum(loss.by_token) for loss in losses] == pytest.approx([loss.nats for loss in losses])


def test_losses_that_are_read_back_stand_in_the_order_of_those_of_a_new_branch(setting, texts, tmp_path, trained):
    """A run that was killed between two branches wrote the rows of its table in another order."""
    backwards = {name: texts[name] for name in sorted(texts, reverse=True)}
    (new,), (kept,) = (run(setting, backwards, tmp_path, BRANCHES[:1]) for _ in range(2))
    assert trained == ["a0"]
    assert list(kept.losses) == list(new.losses) == list(backwards)


def test_threads_of_the_process_do_not_matter(setting, texts, tmp_path):
    one = run(setting, texts, tmp_path / "one", BRANCHES[:1])
    torch.set_num_threads(2)
    assert run(setting, texts, tmp_path / "two", BRANCHES[:1]) == one
    assert torch.get_num_threads() == 2


def test_stopped_pool_goes_on_with_what_is_missing(setting, texts, tmp_path, trained):
    whole = run(setting, texts, tmp_path / "whole")
    trained.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch_pool, "train_branch", _interrupt_the_third(branch_pool.train_branch))
        with pytest.raises(KeyboardInterrupt):
            run(setting, texts, tmp_path / "stopped")
    assert trained == ["a0", "b0", "a1"]
    trained.clear()
    assert run(setting, texts, tmp_path / "stopped") == whole
    assert trained == ["a1", "b1"]
    trained.clear()
    assert run(setting, texts, tmp_path / "stopped") == whole
    assert trained == []


def _interrupt_the_third(train_branch):
    calls: list[None] = []

    def interrupting(*arguments, **keywords):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_branch(*arguments, **keywords)

    return interrupting


def test_another_replicate_costs_only_itself(setting, texts, tmp_path, trained):
    run(setting, texts, tmp_path)
    trained.clear()
    run(setting, texts, tmp_path, [*BRANCHES, Branch("a", FIRST, 2)])
    assert trained == ["a2"]


@pytest.mark.parametrize("change", ["texts", "steps", "seed", "rate", "mixture", "checkpoint", "key"])
def test_result_of_anything_else_is_not_taken(setting, texts, tmp_path, trained, change):
    run(setting, texts, tmp_path, BRANCHES[:1])
    key, branch = "code", BRANCHES[0]
    if change == "texts":
        texts = {"code": texts["code"]}
    elif change == "mixture":
        branch = Branch("a", SECOND)
    elif change == "checkpoint":
        (setting.checkpoint / "config.json").write_text((setting.checkpoint / "config.json").read_text() + "\n")
    elif change == "key":
        key = "other code"
    else:
        values = {"steps": 3, "seed": 1, "rate": None}
        schedule = Schedule.of(train_parameters(warmup_tokens=64), 2)
        setting = BranchSetting(
            **{**vars(setting), **({"schedule": schedule} if change == "rate" else {change: values[change]})}
        )
    run(setting, texts, tmp_path, [branch], key=key)
    assert len(trained) == 2


def test_names_and_settings_that_change_nothing_train_nothing_again(setting, texts, tmp_path, trained):
    run(setting, texts, tmp_path, BRANCHES[:1])
    same = BranchSetting(**{**vars(setting), "train": train_parameters(save_every_steps=1, evaluation_items=3)})
    run(same, texts, tmp_path, [Branch("renamed", FIRST)])
    assert trained == ["a0"]


@pytest.mark.parametrize(
    ("error", "kind", "reason", "attempts"),
    [
        (DivergedError("Training diverged at step 1"), "diverged", "diverged at step 1", 1),
        (torch.OutOfMemoryError("CUDA out of memory."), "memory", "CUDA out of memory", 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 byte"), "memory", "can't allocate", 2),
        (MemoryError(), "memory", "Memory ran out: MemoryError", 2),
    ],
)
def test_failed_branch_is_recorded_told_and_left_out_and_tried_again_if_it_can_end_otherwise(
    setting, texts, tmp_path, failing, caplog, error, kind, reason, attempts
):
    made = failing(error)
    branch_pool._LOG.addHandler(caplog.handler)
    results = run(setting, texts, tmp_path / "results")
    branch_pool._LOG.removeHandler(caplog.handler)
    assert [result.failure is None for result in results] == [True, False, True, True]
    assert results[1].failure is not None
    assert results[1].failure.kind == kind
    assert reason in results[1].failure.reason
    assert f"Branch b of replicate 0 is left out. {results[1].failure.reason}" in caplog.text
    assert sum(json.loads(file.read_text())["failure"] is not None for file in (tmp_path / "results").iterdir()) == 1
    assert run(setting, texts, tmp_path / "results") == results
    assert len(made) == attempts


def test_branch_that_ends_with_weights_of_no_use_has_diverged(setting, texts, tmp_path):
    wild = BranchSetting(**{**vars(setting), "train": train_parameters(learning_rate=1e18, warmup_tokens=0)})
    result = branch_pool.train_and_score((wild, texts), BRANCHES[0])
    assert result.failure is not None
    assert result.failure.kind == "diverged"
    with pytest.raises(TikmixError, match="No branch came through"):
        run(wild, texts, tmp_path / "results", BRANCHES[:1])


def test_process_that_is_killed_is_a_branch_without_memory(setting, texts, tmp_path, monkeypatch):
    def killed(function, shared, jobs, **_):
        yield 1, Died(-9)
        yield 0, function(shared, jobs[0])

    monkeypatch.setattr(branch_pool, "each_job", killed)
    first, second = run(setting, texts, tmp_path, BRANCHES[:2], workers=2)
    assert first.failure is None
    assert second.failure == Failure("memory", second.failure.reason)
    assert "code -9" in second.failure.reason


def test_any_other_error_ends_the_pool(setting, texts, tmp_path, failing):
    failing(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(setting, texts, tmp_path)


def test_checkpoint_that_does_not_fit_is_refused_not_left_out(setting, texts, tmp_path):
    unfit = BranchSetting(**{**vars(setting), "train": train_parameters(context=32)})
    with pytest.raises(TikmixError, match=r"train\.context is 32"):
        run(unfit, texts, tmp_path)
