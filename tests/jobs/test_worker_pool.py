"""Jobs in processes of their own, none of which needs torch."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs import worker_pool
from tikmix_pipeline.jobs.worker_pool import Died, each_in_a_process


def multiply_or_die(shared: int, job: int | str) -> int:
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "mistake":
        raise TikmixError("too small")
    return shared * int(job)


def beat(shared: Path, job: int) -> None:
    while True:
        (shared / str(job)).write_text(str(time.monotonic()))
        time.sleep(0.05)


def test_every_job_is_done_once_and_named():
    assert sorted(each_in_a_process(multiply_or_die, 10, [1, 2, 3, 4, 5], workers=2)) == [
        (0, 10),
        (1, 20),
        (2, 30),
        (3, 40),
        (4, 50),
    ]


def test_a_killed_process_loses_its_own_job_alone():
    found = dict(each_in_a_process(multiply_or_die, 10, [1, "die", 3], workers=1))
    assert found == {0: 10, 1: Died(-signal.SIGKILL), 2: 30}


def test_a_mistake_ends_the_pool_with_its_own_message():
    with pytest.raises(TikmixError, match="too small"):
        list(each_in_a_process(multiply_or_die, 10, [1, "mistake", 3], workers=1))


def test_any_other_error_is_told_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"multiply_or_die[\s\S]*invalid literal for int"):
        list(each_in_a_process(multiply_or_die, 10, ["x"], workers=1))


def test_process_that_cannot_start_is_told_apart_from_a_job_that_died(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from operator import add\nfrom tikmix_pipeline.jobs.worker_pool import each_in_a_process\n"
        "print(list(each_in_a_process(add, 1, [1, 2], workers=2)))\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "A worker process could not start" in ended.stderr
    assert "below `if __name__ == '__main__':`" in ended.stderr


def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = (
        "import sys; from pathlib import Path; from test_worker_pool import beat;"
        "from tikmix_pipeline.jobs.worker_pool import each_in_a_process;"
        "list(each_in_a_process(beat, Path(sys.argv[1]), [1], workers=1))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent)
    pulse = tmp_path / "1"
    while not pulse.exists():
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    last, since = "", time.monotonic()
    while time.monotonic() < since + 2:  # forty missed beats
        time.sleep(0.05)
        if pulse.read_text() != last:
            last, since = pulse.read_text(), time.monotonic()
            assert time.monotonic() < float(last or since) + 20


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_process_whose_starter_is_gone_says_nothing(jobs, monkeypatch):
    """SIGKILL of a run in the middle of what a worker reports left its traceback on the terminal."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    for number in range(jobs):
        ours.send(number)
    if jobs == 0:
        ours.close()
    worker_pool._work(theirs, lambda _, job: ours.close() or job, None)
    assert ours.closed
