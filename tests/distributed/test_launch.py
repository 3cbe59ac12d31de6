"""How ranks are started, and what is said when they cannot be."""

import ast
from pathlib import Path

import pytest
from lm_examples import FIRST, MODEL, train_parameters

import tikmix_pipeline
from tikmix_pipeline.distributed.job import read_job
from tikmix_pipeline.distributed.work import FAILURE, work
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.on_ranks import Training, train_on_ranks
from tikmix_pipeline.lm.schedule import Schedule


@pytest.fixture
def run(start, token_shards, tmp_path):
    """Return what runs a command in place of the launcher."""

    def with_command(*words: str) -> None:
        train = train_parameters(world_size=2, launch=" ".join(words))
        job = Training(start.folder, token_shards.folder, FIRST, MODEL, train, Schedule.of(train, 1), 0, "")
        folder = tmp_path / "resume"
        train_on_ranks(job, folder, None, lambda write: write(folder))

    return with_command


def test_a_command_of_the_users_own_is_given_the_folder(run, tmp_path):
    # which is no launcher: what it leaves undone is not done by this process instead
    with pytest.raises(TikmixError, match=r"ended without a result.*train\.launch='cp"):
        run("cp", "{folder}/job.json", f"{tmp_path}/seen.json")
    assert Training.of(read_job(tmp_path / "resume")).train.world_size == 2
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
        read_job(tmp_path)


def test_ranks_started_again_after_a_users_mistake_do_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (tmp_path / FAILURE).touch()
    work(tmp_path)


def test_one_process_imports_nothing_of_several():
    package = Path(tikmix_pipeline.__file__).parent
    of_several = {"rank_group", "sharding", "checkpoint", "launch", "work", "on_ray", "job"}
    for file in [*package.glob("lm/*.py"), *package.glob("pipelines/**/*.py"), *package.glob("influence/*.py")]:
        if file.name in ("on_ranks.py", "rank_crew.py"):
            continue
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            imported = ast.unparse(statement) if isinstance(statement, ast.Import | ast.ImportFrom) else ""
            assert not any(f"tikmix_pipeline.distributed.{name}" in imported for name in of_several), file


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
