"""An entry of the keyed store counts only under the key that it was written with."""

import os
from pathlib import Path

import pytest

from tikmix_pipeline.store.keyed import KeyedEntry, KeyedResults, key_of


def write(entry: KeyedEntry, text: str = "state") -> None:
    def into(folder: Path) -> None:
        folder.mkdir()
        (folder / "file").write_text(text)

    entry.save(into)


def test_entry_is_found_under_its_key_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "state"
    write(KeyedEntry(folder, "a"))
    assert KeyedEntry(folder, "a").find() == folder
    assert KeyedEntry(folder, "b").find() is None
    assert KeyedEntry(folder, "").find() is None
    assert KeyedEntry(folder.with_name("other"), "a").find() is None


def test_entry_that_was_never_finished_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    assert KeyedEntry(tmp_path / "state", "a").find() is None


def test_failure_while_an_entry_is_replaced_leaves_the_old_one(tmp_path: Path) -> None:
    entry = KeyedEntry(tmp_path / "state", "a")
    write(entry, "old")
    with pytest.raises(KeyboardInterrupt), entry.replacing():
        raise KeyboardInterrupt
    found = entry.find()
    assert found is not None
    assert (found / "file").read_text() == "old"


def test_failure_under_a_new_key_leaves_nothing_that_could_be_taken_for_it(tmp_path: Path) -> None:
    old, new = (KeyedEntry(tmp_path / "state", key) for key in "ab")
    write(old)
    with pytest.raises(KeyboardInterrupt), new.replacing():
        raise KeyboardInterrupt
    assert old.find() is None
    assert new.find() is None


def test_discarded_entry_leaves_nothing_and_the_folder_goes_with_the_last(tmp_path: Path) -> None:
    first, second = (KeyedEntry(tmp_path / "work" / name, "a") for name in ("first", "second"))
    write(first)
    write(second)
    first.discard()
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["second", "second.key.json"]
    second.discard()
    assert not (tmp_path / "work").exists()


def test_what_a_failing_disk_kept_of_an_entry_goes_with_it(tmp_path: Path) -> None:
    entry = KeyedEntry(tmp_path / "work" / "state", "a")
    write(entry)
    (tmp_path / "work" / f".state.{os.getpid()}.old").mkdir()
    (tmp_path / "work" / f".state.key.json.{os.getpid()}.tmp").touch()
    entry.discard()
    assert not (tmp_path / "work").exists()


def test_small_result_is_read_back_under_its_key(tmp_path: Path) -> None:
    store, key = KeyedResults(tmp_path), key_of({"mixture": [0.5, 0.5]})
    assert store.read(key) is None
    store.write(key, {"loss": 0.1 + 0.2})
    assert store.read(key) == {"loss": 0.1 + 0.2, "key": key}


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_damaged_result_counts_as_none(tmp_path: Path, damage: str) -> None:
    store, key = KeyedResults(tmp_path), key_of("x")
    store.write(key, {"loss": 1.0})
    (file,) = tmp_path.iterdir()
    file.write_text(damage)
    assert store.read(key) is None


def test_result_of_another_key_with_the_same_file_name_is_not_taken(tmp_path: Path) -> None:
    store = KeyedResults(tmp_path)
    store.write("a" * 64, {"loss": 1.0})
    assert store.read("a" * 24 + "b" * 40) is None


@pytest.mark.parametrize("name", ["state/file", "state.key.json"])
def test_entry_with_any_byte_flipped_is_not_found(tmp_path: Path, name: str) -> None:
    entry = KeyedEntry(tmp_path / "state", "a")
    write(entry)
    whole = (tmp_path / name).read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1
        (tmp_path / name).write_bytes(content)
        found = entry.find()
        # white space may be another character of its kind; what the entry says is the same then
        assert found is None or (name == "state.key.json" and whole[place : place + 1].isspace())
    (tmp_path / name).write_bytes(whole)
    assert entry.find() == tmp_path / "state"


def test_entry_of_which_a_file_is_lost_is_not_found_and_one_that_was_added_to_is(tmp_path: Path) -> None:
    entry = KeyedEntry(tmp_path / "state", "a")
    write(entry)
    (tmp_path / "state" / "later").write_text("by ranks")
    assert entry.find() == tmp_path / "state"
    (tmp_path / "state" / "file").unlink()
    assert entry.find() is None


def test_small_result_with_any_byte_flipped_counts_as_none(tmp_path: Path) -> None:
    store, key = KeyedResults(tmp_path), key_of("x")
    store.write(key, {"loss": 1.25, "losses": {"1": 0.5}})
    (file,) = tmp_path.iterdir()
    whole, said = file.read_bytes(), store.read(key)
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1
        file.write_bytes(content)
        assert store.read(key) in (None, said)
