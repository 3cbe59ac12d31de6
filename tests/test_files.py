import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import SafetensorError

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import (
    read_json,
    read_json_object,
    replacing,
    require_space,
    sha256_of_file,
    write_json,
)


def test_reader_sees_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(TypeError), replacing(path) as temporary, temporary.open("w") as stream:
        stream.writelines(["half", object()])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "stale").touch()
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "fresh").touch()
    assert [file.name for file in path.iterdir()] == ["fresh"]


def test_folder_that_could_not_be_replaced_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    monkeypatch.setattr("tikmix_pipeline.files.remove", lambda _: None)  # a kill right after the rename
    with replacing(path) as temporary:
        temporary.mkdir()
    assert {file.name for file in tmp_path.iterdir()} == {"folder", f".folder.{os.getpid()}.old"}


def test_leftovers_of_a_killed_process_are_cleared_by_the_next(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / f".x.{int(dead.stdout)}.tmp").write_text("half")
    (tmp_path / f".x.{os.getppid()}.tmp").write_text("of a process that lives")
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert {file.name for file in tmp_path.iterdir()} == {"x", f".x.{os.getppid()}.tmp"}


def test_folder_moved_aside_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    aside = tmp_path / f".folder.{int(dead.stdout)}.old"
    aside.mkdir()
    (aside / "kept").touch()
    with pytest.raises(RuntimeError), replacing(tmp_path / "folder"):
        raise RuntimeError
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["kept"]


def test_json_of_equal_values_is_equal_in_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [0.1]})
    write_json(tmp_path / "b", {"y": [0.1], "x": 1})
    assert sha256_of_file(tmp_path / "a") == sha256_of_file(tmp_path / "b")


def test_damaged_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "mixture.json").write_text('{"weights": ')
    with pytest.raises(TikmixError, match=r"mixture\.json is not valid JSON"):
        read_json(tmp_path / "mixture.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("web,maths\n.5,.5\n", r"remix\.current: .*given\.json cannot be read as JSON \(.*\)\. Give another"),
        ("[1]", r"remix\.current: .*given\.json holds list, expected an object\. Give another"),
        ("[" * 100_000, r"given\.json cannot be read as JSON \(maximum recursion"),
    ],
)
def test_json_of_somebody_else_is_never_to_be_deleted(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "given.json").write_text(content)
    with pytest.raises(TikmixError, match=message) as error:
        read_json_object(tmp_path / "given.json", "Give another.", source="remix.current: ")
    assert "Delete" not in str(error.value)


def test_json_of_somebody_else_may_begin_with_a_mark_of_byte_order(tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text('{"web": 1}', encoding="utf-8-sig")
    assert read_json_object(tmp_path / "given.json", "Give another.") == {"web": 1}


def test_too_little_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TikmixError, match=r"Token shards need 1000000000000000 MB .* Free some space"):
        require_space(tmp_path / "not" / "there", 10**21, "Token shards")
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def on_a_full_disk(path: Path) -> Iterator[Path]:
    with replacing(path) as temporary:
        temporary.symlink_to("/dev/full")
        yield temporary


def save_tensors(path: Path) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("half"),
        lambda path: np.zeros(100_000).tofile(path),
        lambda path: pd.DataFrame({"a": range(1000)}).to_parquet(path),
        lambda path: pd.DataFrame({"a": range(1000)}).to_csv(path),
        save_tensors,
    ],
    ids=["text", "NumPy", "Parquet", "CSV", "safetensors"],
)
def test_a_full_disk_is_told_with_what_was_to_be_written_and_nothing_of_it_stays(
    tmp_path: Path, write: Callable[[Path], Any]
) -> None:
    """Of the device whose every write says that it is full."""
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(TikmixError) as error, on_a_full_disk(path) as temporary:
        write(temporary)
    assert str(error.value).startswith(f"{path}: the disk is full: free some space, and run the same command again")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_other_trouble_with_the_disk_names_the_file_that_has_it(tmp_path: Path, number: int) -> None:
    with pytest.raises(TikmixError, match=rf"^{tmp_path}/x: "), replacing(tmp_path / "x") as temporary:
        raise OSError(number, os.strerror(number), str(temporary))
    with pytest.raises(TikmixError, match=r"^texts/a\.jsonl: "), replacing(tmp_path / "x"):
        raise OSError(number, os.strerror(number), "texts/a.jsonl")


def test_an_error_that_is_not_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x"):
        raise FileNotFoundError(errno.ENOENT, "none", "texts/a.jsonl")


def test_what_a_dead_process_left_in_the_place_of_its_temporary_folder_is_cleared_too(tmp_path: Path) -> None:
    """As where a checkpoint is written into the temporary folder of a resume point on a disk that fails for good."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f"..resume.{ended.pid}.tmp.{ended.pid}.tmp"
    left.mkdir()
    (left / "config.json").write_text("{}")
    with replacing(tmp_path / "resume") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["resume"]
