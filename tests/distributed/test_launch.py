"""How ranks are started, and what is said when they cannot be."""

import subprocess
import sys

import pytest
from lm_examples import FIRST, MODEL, train_parameters

from tikmix_pipeline.distributed.job import FAILURE, Job, work
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.chunk import train_chunk
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.store.keyed import KeyedEntry


@pytest.fixture
def run(start, token_shards, tmp_path):
    """Return what runs a command in place of the launcher."""

    def with_command(*words: str) -> None:
        train, resume = (
            train_parameters(world_size=2, launch=" ".join(words)),
            KeyedEntry(tmp_path / "resume", "this chunk"),
        )
        schedule = Schedule.of(train, 1)
        train_chunk(start, token_shards, FIRST, model=MODEL, train=train, schedule=schedule, seed=0, resume=resume)

    return with_command


def test_a_command_of_the_users_own_is_given_the_folder(run, tmp_path):
    # which is no launcher: what it leaves undone is not done by this process instead
    with pytest.raises(TikmixError, match=r"ended without a result.*train\.launch='cp"):
        run("cp", "{folder}/job.json", f"{tmp_path}/seen.json")
    assert Job.read(tmp_path / "resume").processes.world_size == 2
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


def test_one_process_loads_nothing_of_several():
    code = """
import sys
import tikmix_pipeline.lm.branch_pool, tikmix_pipeline.influence.measure
of_several = ("fsdp", "tensor", "checkpoint", "elastic", "launcher")
loaded = [name for name in of_several if f"torch.distributed.{name}" in sys.modules]
print(loaded, "ray" in sys.modules, "transformers" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[0] == "[] False False"


@pytest.mark.parametrize("command", ["tikmix_pipeline.ranks", "tikmix_pipeline.ranks.ray_launch"])
def test_the_old_commands_say_their_new_name_and_do_the_same(tmp_path, command):
    words = [sys.executable, "-m", command, str(tmp_path)] + (["--nodes", "1"] if "ray" in command else [])
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "tikmix_pipeline.ranks is now tikmix_pipeline.distributed: set train.launch to" in found.stderr
    assert "holds no job.json" in found.stderr


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
