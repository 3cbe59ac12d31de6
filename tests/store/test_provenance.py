import json
import shutil
from pathlib import Path

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.store.provenance import (
    ProvenanceRecord,
    artifact_status,
    forget_record,
    read_record,
    record_path,
    remove_altered,
    require_unaltered,
    write_record,
)


def record(node: str = "train", code: str = "abc", rate: float = 0.1, start: str = "f0") -> ProvenanceRecord:
    return ProvenanceRecord(node=node, code=code, parameters={"train": {"rate": rate}}, inputs={"start": start})


def made(folder: Path, by: ProvenanceRecord) -> Path:
    artifact = folder / "table.json"
    artifact.write_text("{}")
    write_record(artifact, by)
    return artifact


def test_artifact_of_the_same_record_is_fresh(tmp_path: Path) -> None:
    assert artifact_status(made(tmp_path, record()), record()) == ("fresh", "")


def test_fingerprint_does_not_depend_on_the_name_of_the_node() -> None:
    assert record(node="a").fingerprint == record(node="b").fingerprint


def test_changed_parameter_makes_stale_and_is_named_with_both_values(tmp_path: Path) -> None:
    status, reason = artifact_status(made(tmp_path, record()), record(rate=0.2))
    assert status == "stale"
    assert reason == "train.rate was 0.1, is 0.2"


def test_changed_input_makes_stale_and_is_named(tmp_path: Path) -> None:
    assert artifact_status(made(tmp_path, record()), record(start="f1")) == ("stale", "made from another start")


def test_changed_code_makes_stale_and_names_the_node(tmp_path: Path) -> None:
    status, reason = artifact_status(made(tmp_path, record()), record(code="new"))
    assert (status, reason) == ("stale", "the code of train has changed")


def test_artifact_edited_after_writing_is_found_out(tmp_path: Path) -> None:
    artifact = made(tmp_path, record())
    artifact.write_text('{"weights": 1}')
    assert artifact_status(artifact, record()) == ("altered", "changed after it was written: table.json")


def test_artifact_whose_record_was_never_written_is_stale(tmp_path: Path) -> None:
    artifact = made(tmp_path, record())
    forget_record(artifact)
    assert artifact_status(artifact, record())[0] == "stale"


def test_record_without_its_artifact_counts_as_missing(tmp_path: Path) -> None:
    artifact = made(tmp_path, record())
    artifact.unlink()
    assert record_path(artifact).exists()
    assert artifact_status(artifact, record())[0] == "missing"


def test_file_changed_or_lost_inside_a_folder_is_found_out(tmp_path: Path) -> None:
    folder = tmp_path / "round_0"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes(b"weights")
    write_record(folder, record())
    assert artifact_status(folder, record())[0] == "fresh"
    (folder / "model.safetensors").write_bytes(b"Weights")
    assert artifact_status(folder, record()) == ("altered", "changed after it was written: model.safetensors")
    (folder / "config.json").unlink()
    assert "config.json" in artifact_status(folder, record())[1]


def test_large_folder_is_held_to_its_files_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "gradients"
    folder.mkdir()
    (folder / "part").write_bytes(b"gradient")
    write_record(folder, record(), digested_bytes=-1)
    (folder / "part").write_bytes(b"Gradient")
    assert artifact_status(folder, record())[0] == "fresh"
    (folder / "part").write_bytes(b"cut")
    assert artifact_status(folder, record()) == ("altered", "changed after it was written: part")


def test_copied_folder_is_still_fresh(tmp_path: Path) -> None:
    folder = tmp_path / "round_0"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    write_record(folder, record())
    for path in (folder, record_path(folder)):
        target = tmp_path / "copy" / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(path, target) if path.is_dir() else shutil.copyfile(path, target)
    assert artifact_status(tmp_path / "copy" / "round_0", record())[0] == "fresh"


def flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("digested_bytes", [-1, 1000])
def test_byte_that_a_look_does_not_see_is_seen_before_use_and_at_every_look_from_then_on(
    tmp_path: Path, digested_bytes: int
) -> None:
    folder = tmp_path / "gradients"
    folder.mkdir()
    (folder / "part").write_bytes(bytes(6 << 20))  # of which a look reads four blocks of a MiB
    (folder / "other").write_bytes(b"other")
    write_record(folder, record(), digested_bytes=digested_bytes)
    require_unaltered(folder)
    flipped(folder / "part", (1 << 20) + 5)
    assert artifact_status(folder, record())[0] == "fresh"
    with pytest.raises(TikmixError, match=r"gradients was altered after it was written: part\."):
        require_unaltered(folder)
    assert artifact_status(folder, record()) == ("altered", "changed after it was written: part")


def test_large_file_that_another_of_its_size_was_put_in_place_of_is_found_out_at_a_look(tmp_path: Path) -> None:
    artifact = tmp_path / "weights"
    artifact.write_bytes(bytes(6 << 20))
    write_record(artifact, record(), digested_bytes=1000)
    artifact.write_bytes(bytes([1]) * (6 << 20))
    assert artifact_status(artifact, record())[0] == "altered"


def test_what_is_worked_on_again_loses_its_altered_files_and_keeps_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "gradients"
    folder.mkdir()
    for name in ("whole", "flipped"):
        (folder / name).write_bytes(b"gradient")
    write_record(folder, record(), digested_bytes=-1)
    flipped(folder / "flipped", 3)
    (folder / "added").write_bytes(b"later")
    remove_altered(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["added", "whole"]


def test_record_with_any_byte_flipped_vouches_for_nothing_false(tmp_path: Path) -> None:
    """Either it is told to be damaged, or it says what it said (a digest under another name is that of no one)."""
    artifact = made(tmp_path, record())
    path = record_path(artifact)
    whole = path.read_bytes()
    said = read_record(artifact)
    assert said is not None
    for place in range(len(whole)):
        flipped(path, place)
        found = read_record(artifact)
        assert found in (None, said)
        assert artifact_status(artifact, record())[0] == ("stale" if found is None else "fresh")
        path.write_bytes(whole)


def test_record_cut_at_any_byte_is_no_record(tmp_path: Path) -> None:
    artifact = made(tmp_path, record())
    whole = record_path(artifact).read_bytes()
    for length in range(len(whole) - 2):
        record_path(artifact).write_bytes(whole[:length])
        assert artifact_status(artifact, record())[0] == "stale"


def test_record_of_an_earlier_version_still_counts(tmp_path: Path) -> None:
    """It has no digest of its own, and nothing but the size of a large file."""
    artifact = made(tmp_path, record())
    content = json.loads(record_path(artifact).read_text())
    del content["digest"]
    content["content"]["table.json"] = content["content"]["table.json"][:1]
    content["digested_bytes"] = 1
    record_path(artifact).write_text(json.dumps(content))
    assert artifact_status(artifact, record())[0] == "fresh"
    require_unaltered(artifact)
