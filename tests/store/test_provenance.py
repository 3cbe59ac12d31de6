import shutil
from pathlib import Path

from tikmix_pipeline.store.provenance import ProvenanceRecord, artifact_status, forget_record, record_path, write_record


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
