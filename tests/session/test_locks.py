"""Locks keep two runs apart, and say so where they cannot be relied on."""

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.session.locks import alone, locked


def test_second_is_refused_and_told_who_is_at_work_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "outputs" / ".one.lock"
    refused = pytest.raises(TikmixError, match=rf"Another run \(process {os.getpid()}\) is at work on the experiment")
    with locked(path, "the experiment 'one'", ""), refused, locked(path, "the experiment 'one'", "Choose another name"):
        pass
    with locked(path, "the experiment 'one'", "Choose another experiment name"):
        pass


def test_lock_that_another_host_has_not_given_free_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".one.lock"
    path.write_text("4711 node-17")
    with locked(path, "the experiment 'one'", ""):
        assert path.read_text() == f"{os.getpid()} {socket.gethostname()}"
    assert "Process 4711 on node-17 has not given the experiment 'one' free" in caplog.text
    assert "does not pass locks on" in caplog.text


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


def test_file_system_without_locks_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path / ".one.lock", "the experiment 'one'", ""), alone(tmp_path / ".other.lock"):
        pass
    assert "the experiment 'one' cannot be locked" in caplog.text
    assert "see to it that no other run is at work" in caplog.text
