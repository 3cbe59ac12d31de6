import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from lm_examples import FIRST, MODEL, SECOND, train_parameters

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.worker_pool import Died
from tikmix_pipeline.lm import branch_pool
from tikmix_pipeline.lm.branch_pool import (
    Branch,
    BranchResult,
    BranchSetting,
    Failure,
    cost_of_branches,
    run_branches,
)
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.lm.cost_records import NO_COST
from tikmix_pipeline.lm.evaluation import TextLoss
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import DivergedError

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


BRANCH = Branch("a", {"code": 1.0})
WHOLE = BranchResult(BRANCH, {"quiz": TextLoss(1.0, 1)})
DIVERGED = BranchResult(BRANCH, {}, Failure("diverged", "the loss is nan"))
LOST = BranchResult(BRANCH, {}, Failure("memory", "none left"))


def padded() -> TokenBatch:
    """Two sequences of 8 positions, the first with 4 of padding."""
    last_B = np.array([[4], [8]])
    positions_S = np.arange(9)
    return TokenBatch(np.ones((2, 9), dtype=np.int64), (positions_S > 0) & (positions_S <= last_B))


def test_branches_that_diverged_are_trained_and_those_lost_to_memory_are_not(start, setting):
    cost = cost_of_branches(setting, [WHOLE, DIVERGED, LOST], {})
    assert cost.trained == 2
    assert cost.training == training_cost(start.model(MODEL).config, context=16, tokens=2 * 2 * 64)
    assert cost.scoring == NO_COST


def test_only_branches_that_came_through_are_scored_without_counting_padding_as_tokens(start, setting):
    cost = cost_of_branches(setting, [WHOLE, WHOLE, DIVERGED, LOST], {"quiz": [padded()], "riddle": [padded()]})
    config = start.model(MODEL).config
    assert cost.scoring.tokens == 2 * 2 * (4 + 8)
    # the operations are those of sequences of 8, not of `train.context`, and the padding's are done as well
    assert cost.scoring.flops == scoring_cost(config, context=8, tokens=2 * 2 * 16).flops
