"""Locks keep two runs apart, and say so where they cannot be relied on."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.session import locks
from tikmix_pipeline.session.locks import alone, locked

ON_ANOTHER_HOST = """
import fcntl, signal, socket, sys
from pathlib import Path
from tikmix_pipeline.session import locks
fcntl.flock = lambda *_: None  # as a file system does it that holds locks on one host alone
socket.gethostname = lambda: "node-17"
locks.BEAT = 0.05
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an ordered end, as of every run
with locks.locked(Path(sys.argv[1]), "the experiment 'one'", ""):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def run_on_another_host(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Have a process hold a lock that takes itself for one of the host node-17, until it is told to end."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", ON_ANOTHER_HOST, str(path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files lie on a file system that has no locks."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)


@pytest.fixture(autouse=True)
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch for a second, not for twenty."""
    monkeypatch.setattr(locks, "WATCH", 1.0)


def test_second_is_refused_and_told_who_is_at_work_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "outputs" / ".one.lock"
    refused = pytest.raises(TikmixError, match=rf"Another run \(process {os.getpid()}\) is at work on the experiment")
    with locked(path, "the experiment 'one'", ""), refused, locked(path, "the experiment 'one'", "Choose another name"):
        pass
    with locked(path, "the experiment 'one'", "Choose another experiment name"):
        pass


def test_lock_that_a_killed_run_of_another_host_has_left_is_taken_after_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".one.lock"
    path.write_text("4711 node-17")
    start = time.monotonic()
    with locked(path, "the experiment 'one'", ""):
        assert path.read_text() == f"{os.getpid()} {socket.gethostname()}"
    assert time.monotonic() - start >= locks.WATCH
    assert "Process 4711 on node-17 has not given the experiment 'one' free: watching" in caplog.text
    assert "Process 4711 on node-17 shows no sign of life" in caplog.text


def test_run_of_another_host_is_seen_at_work_where_locks_are_not_passed_on(tmp_path: Path) -> None:
    path = tmp_path / ".one.lock"
    with run_on_another_host(path) as other:
        told = rf"Another run \(process {other.pid} on node-17\) is at work on the experiment 'one'"
        with pytest.raises(TikmixError, match=told), locked(path, "the experiment 'one'", ""):
            pass
        assert path.read_text() == f"{other.pid} node-17"
        other.communicate("")
    with locked(path, "the experiment 'one'", ""):
        pass


@pytest.mark.parametrize("left", ["", "4711"])
def test_lock_that_was_given_free_or_left_by_a_kill_on_this_host_is_taken_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: str
) -> None:
    path = tmp_path / ".one.lock"
    path.write_text(f"{left} {socket.gethostname()}" if left else "")
    with locked(path, "the experiment 'one'", ""):
        pass
    assert path.read_text() == ""
    assert caplog.text == ""


@pytest.mark.usefixtures("no_locks")
def test_file_system_without_locks_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked(tmp_path / ".one.lock", "the experiment 'one'", ""), alone(tmp_path / ".other.lock"):
        pass
    assert "the experiment 'one' cannot be locked" in caplog.text
    assert "see to it that no other run is at work" in caplog.text


def test_run_whose_lock_another_host_has_taken_ends_itself(tmp_path: Path) -> None:
    path = tmp_path / ".one.lock"
    with run_on_another_host(path) as other:
        path.write_text("4711 node-3")
        assert other.wait(30) == 128 + signal.SIGTERM
        assert other.stderr is not None
        assert "Process 4711 on node-3 is at work on the experiment 'one' too" in other.stderr.read()
    assert path.read_text() == "4711 node-3"


@pytest.mark.usefixtures("no_locks")
def test_second_is_refused_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.05)
    path = tmp_path / ".one.lock"
    refused = pytest.raises(TikmixError, match="is at work on the experiment 'one'")
    with locked(path, "the experiment 'one'", ""), refused, locked(path, "the experiment 'one'", ""):
        pass
