"""An entry of the keyed store counts only under the key that it was written with."""

from pathlib import Path

import pytest

from tikmix_pipeline.store.keyed import KeyedStore, key_of


def write(store: KeyedStore, name: str, key: str, text: str = "state") -> None:
    with store.replacing(name, key) as temporary:
        temporary.mkdir()
        (temporary / "file").write_text(text)


def test_entry_is_found_under_its_key_and_no_other(tmp_path: Path) -> None:
    store = KeyedStore(tmp_path / "work")
    write(store, "state", "a")
    assert store.find("state", "a") == tmp_path / "work" / "state"
    assert store.find("state", "b") is None
    assert store.find("other", "a") is None


def test_entry_that_was_never_finished_is_not_found(tmp_path: Path) -> None:
    store = KeyedStore(tmp_path)
    (tmp_path / "state").mkdir()
    assert store.find("state", "a") is None


def test_failure_while_an_entry_is_replaced_leaves_the_old_one(tmp_path: Path) -> None:
    store = KeyedStore(tmp_path)
    write(store, "state", "a", "old")
    with pytest.raises(KeyboardInterrupt), store.replacing("state", "a"):
        raise KeyboardInterrupt
    found = store.find("state", "a")
    assert found is not None
    assert (found / "file").read_text() == "old"


def test_failure_under_a_new_key_leaves_nothing_that_could_be_taken_for_it(tmp_path: Path) -> None:
    store = KeyedStore(tmp_path)
    write(store, "state", "a", "old")
    with pytest.raises(KeyboardInterrupt), store.replacing("state", "b"):
        raise KeyboardInterrupt
    assert store.find("state", "a") is None
    assert store.find("state", "b") is None


def test_discarded_entry_leaves_nothing_and_the_folder_goes_with_the_last(tmp_path: Path) -> None:
    store = KeyedStore(tmp_path / "work")
    write(store, "first", "a")
    write(store, "second", "a")
    store.discard("first")
    assert sorted(path.name for path in store.folder.iterdir()) == ["second", "second.key.json"]
    store.discard("second")
    assert not store.folder.exists()


def test_small_result_is_read_back_under_its_key(tmp_path: Path) -> None:
    store, key = KeyedStore(tmp_path), key_of({"mixture": [0.5, 0.5]})
    assert store.read(key) is None
    store.write(key, {"loss": 0.1 + 0.2})
    assert store.read(key) == {"loss": 0.1 + 0.2, "key": key}


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_damaged_result_counts_as_none(tmp_path: Path, damage: str) -> None:
    store, key = KeyedStore(tmp_path), key_of("x")
    store.write(key, {"loss": 1.0})
    (file,) = tmp_path.iterdir()
    file.write_text(damage)
    assert store.read(key) is None


def test_result_of_another_key_with_the_same_file_name_is_not_taken(tmp_path: Path) -> None:
    store = KeyedStore(tmp_path)
    store.write("a" * 64, {"loss": 1.0})
    assert store.read("a" * 24 + "b" * 40) is None
