"""How ranks are started, and what is said when they cannot be."""

import ast
from pathlib import Path

import pytest
import torch
from lm_examples import FIRST, MODEL, train_parameters

import tikmix_pipeline
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.ranks.job import Job
from tikmix_pipeline.lm.ranks.launch import run_ranks
from tikmix_pipeline.lm.ranks.team import joined, rank_device
from tikmix_pipeline.lm.ranks.worker import FAILURE, work
from tikmix_pipeline.lm.schedule import Schedule


@pytest.fixture
def run(start, token_shards, tmp_path):
    """Return what runs a command in place of the launcher."""

    def with_command(*words: str) -> None:
        train = train_parameters(world_size=2, launch=" ".join(words))
        job = Job(start.folder, token_shards.folder, FIRST, MODEL, train, Schedule.of(train, 1), 0, "")
        folder = tmp_path / "resume"
        run_ranks(job, folder, None, lambda write: write(folder))

    return with_command


def test_a_command_of_the_users_own_is_given_the_folder(run, tmp_path):
    run("cp", "{folder}/job.json", f"{tmp_path}/seen.json")
    assert Job.read(tmp_path / "resume").train.world_size == 2
    assert (tmp_path / "seen.json").read_text() == (tmp_path / "resume" / "job.json").read_text()


def test_a_command_that_fails_is_named(run):
    with pytest.raises(TikmixError, match=r"train\.launch failed"):
        run("false", "{folder}")
    with pytest.raises(TikmixError, match=r"train\.launch failed"):
        run("no-such-launcher", "{folder}")


@pytest.mark.parametrize("end", ["true", "false"])
def test_what_a_rank_has_to_say_is_said(run, end):
    with pytest.raises(TikmixError, match=r"^Lower the rate$"):
        run("sh", "-c", f"'printf \"Lower the rate\" > {{folder}}/{FAILURE}; {end}'")


def test_a_folder_without_a_job_is_refused(tmp_path):
    with pytest.raises(TikmixError, match=r"holds no job\.json"):
        Job.read(tmp_path)


def test_ranks_started_again_after_a_users_mistake_do_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (tmp_path / FAILURE).touch()
    work(tmp_path)


def test_another_number_of_ranks_is_refused(team_of_one, monkeypatch):
    monkeypatch.setattr("tikmix_pipeline.lm.ranks.team.meet", lambda _: None)
    with (
        pytest.raises(TikmixError, match=r"train\.world_size is 2, but 1 ranks"),
        joined(train_parameters(world_size=2)),
    ):
        pass


def test_ranks_that_outnumber_the_gpus_are_refused(monkeypatch):
    monkeypatch.setattr("tikmix_pipeline.lm.ranks.team.resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert str(rank_device("auto", 0)) == "cuda:0"
    with pytest.raises(TikmixError, match=r"train\.world_size: this machine has 1 GPUs"):
        rank_device("auto", 1)


def test_one_process_imports_nothing_of_several():
    package = Path(tikmix_pipeline.__file__).parent
    for file in [*package.glob("lm/*.py"), *package.glob("pipelines/**/*.py"), *package.glob("influence/*.py")]:
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            imported = ast.unparse(statement) if isinstance(statement, ast.Import | ast.ImportFrom) else ""
            assert "ranks" not in imported, file
            assert "distributed" not in imported, file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_size": 3}, r"train\.batch_size=4 cannot be dealt to train\.world_size=3"),
        ({"world_size": 4, "shard": 3}, r"train\.world_size=4 is no multiple of train\.shard=3"),
        ({"launch": "torchrun"}, r"train\.launch must name the folder"),
    ],
)
def test_parameters_that_cannot_be_dealt_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        train_parameters(**changes)
