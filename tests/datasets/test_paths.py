from pathlib import Path

import pytest

from tikmix_pipeline.datasets import FolderPathDataset, WorkFolderDataset
from tikmix_pipeline.store.provenance import ProvenanceRecord, artifact_status, write_record

RECORD = ProvenanceRecord(node="train", code="c", parameters={"a": 1}, inputs={})


def write(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "state").write_text("half")


def resume_dataset(folder: Path, record: ProvenanceRecord) -> WorkFolderDataset:
    dataset = WorkFolderDataset(filepath=str(folder), completes="round_0_checkpoint")
    dataset.expected = record
    return dataset


def test_folder_is_there_when_its_path_is_handed_out(tmp_path: Path) -> None:
    assert FolderPathDataset(filepath=str(tmp_path / "a" / "b")).load().is_dir()


def test_resume_point_is_found_by_a_later_run_of_the_same_record(tmp_path: Path) -> None:
    folder = tmp_path / "round_0.resume"
    assert resume_dataset(folder, RECORD).load().find() is None
    resume_dataset(folder, RECORD).load().save(write)
    assert resume_dataset(folder, RECORD).load().find() == folder


def test_resume_point_of_other_parameters_is_never_used(tmp_path: Path) -> None:
    folder = tmp_path / "round_0.resume"
    resume_dataset(folder, RECORD).load().save(write)
    other = ProvenanceRecord(node="train", code="c", parameters={"a": 2}, inputs={})
    assert resume_dataset(folder, other).load().find() is None


def test_discarded_resume_point_leaves_nothing(tmp_path: Path) -> None:
    artifact = tmp_path / "round_0"
    artifact.mkdir()
    point = resume_dataset(tmp_path / "round_0.resume", RECORD).load()
    point.save(write)
    point.discard()
    assert list(tmp_path.iterdir()) == [artifact]


def test_kill_while_a_resume_point_is_replaced_leaves_the_old_one_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "round_0.resume"
    resume_dataset(folder, RECORD).load().save(write)

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume_dataset(folder, RECORD).load().save(killed)
    assert resume_dataset(folder, RECORD).load().find() == folder


def work_dataset(folder: Path, record: ProvenanceRecord | None) -> WorkFolderDataset:
    dataset = WorkFolderDataset(filepath=str(folder), completes="round_0_gradients")
    dataset.expected = record
    return dataset


def test_work_folder_is_handed_out_with_what_is_being_made(tmp_path: Path) -> None:
    work = work_dataset(tmp_path / "gradients", RECORD).load()
    assert work.begin() == tmp_path / "gradients"
    assert work.key == RECORD.fingerprint
    assert work_dataset(tmp_path / "gradients", None).load().key == ""


def test_artifact_that_is_worked_on_again_is_unfinished_until_the_end(tmp_path: Path) -> None:
    """A run with other parameters that is killed must not leave the record of the run before."""
    folder = tmp_path / "gradients"
    write(folder)
    write_record(folder, RECORD)
    other = ProvenanceRecord(node="collect", code="c", parameters={"a": 2}, inputs={})
    work_dataset(folder, other).load().begin()
    assert artifact_status(folder, RECORD)[0] == "stale"
    assert (folder / "state").read_text() == "half"


def test_file_of_an_artifact_that_was_altered_is_not_taken_over_by_the_next_work_on_it(tmp_path: Path) -> None:
    folder = tmp_path / "gradients"
    write(folder)
    write_record(folder, RECORD, digested_bytes=-1)
    (folder / "state").write_text("HALF")
    work_dataset(folder, RECORD).load().begin()
    assert not (folder / "state").exists()
