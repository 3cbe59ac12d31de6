import pytest
from export_examples import GOLDEN, example_schedule

from tikmix_pipeline.export.registry import TRAINERS, write


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainers_files_are_as_they_were_read_and_approved(trainer):
    files = write(trainer, example_schedule()).files
    approved = {name: (GOLDEN / f"{name}.txt").read_text(encoding="utf-8") for name in files}
    assert files == approved


def test_no_golden_file_is_left_over():
    written = {f"{name}.txt" for trainer in TRAINERS for name in write(trainer, example_schedule()).files}
    assert {path.name for path in GOLDEN.iterdir()} == written


@pytest.mark.parametrize("trainer", TRAINERS)
def test_file_names_begin_with_the_trainers_name(trainer):
    assert all(name.startswith(f"{trainer}.") for name in write(trainer, example_schedule()).files)
