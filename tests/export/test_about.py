"""What a file says about itself."""

from dataclasses import replace

import pytest
from export_examples import BATCH, example_domains, example_schedule, one_phase

from tikmix_pipeline.export.registry import TRAINERS, write
from tikmix_pipeline.export.schedule import Phase


def _said(exported) -> str:
    """All comments and sidecars, as one line of words."""
    lines = [line.removeprefix("#") for text in exported.files.values() for line in text.splitlines()]
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize("trainer", TRAINERS)
def test_each_export_says_where_it_comes_from_and_what_it_counts(trainer):
    exported = write(trainer, example_schedule())
    said = _said(exported)
    assert "Experiment spring, round 2." in said
    assert f"Unit of the weights: {exported.unit}." in said
    assert "expected gain (share of the best possible)" in said
    assert "recall +0.0123 0.002" in said
    assert "rhyme -0.001 not known" in said
    assert f"To switch: {exported.switch}" in said
    assert "2.46" in said
    assert "\n" not in exported.switch
    assert all(f"Note: {note}" in said for note in exported.notes)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_file_that_carries_no_comment_has_a_sidecar(trainer):
    names = set(write(trainer, example_schedule()).files)
    bare = {name for name in names if not name.endswith((".yaml", ".yml", ".py", ".about.md"))}
    assert (f"{trainer}.about.md" in names) == bool(bare)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_is_left_out_is_named(trainer):
    schedule = example_schedule(phases=[Phase(0, 0, {"web": 0.7, "code": 0.3, "books": 0.0})])
    exported = write(trainer, schedule)
    assert set(exported.realised.stated) == {"web", "code"}
    assert "Left out, without weight in this stage: books, mail." in _said(exported)


def test_a_weight_too_small_to_be_written_is_told():
    notes = write("nanotron", one_phase({"web": 1 - 1e-12, "mail": 1e-12})).notes
    assert "Too small to be written, and left out: mail." in notes


@pytest.mark.parametrize("trainer", sorted(set(TRAINERS) - {"levanter", "nanotron"}))
def test_text_that_is_read_again_is_counted(trainer):
    notes = " ".join(write(trainer, example_schedule()).notes)
    assert "of the chunk's 8,192,000 tokens up to 7,372,800 are read again" in notes
    assert "books 819,200" in notes


def test_datasets_says_the_same_of_its_switch_and_of_what_is_read_again():
    exported = write("hf_datasets", example_schedule())
    (note,) = [note for note in exported.notes if "are read again" in note]
    condition = ", unless open_dataset skips the documents that were read"
    assert f"every domain starts over{condition}" in exported.switch
    assert note.startswith(f"Every domain starts over at this change{condition}: ")


@pytest.mark.parametrize("trainer", ["levanter", "nanotron"])
def test_trainers_that_keep_their_place_read_nothing_again(trainer):
    assert "read again" not in " ".join(write(trainer, example_schedule()).notes)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_first_stage_reads_nothing_again(trainer):
    unread = [replace(domain, consumed_tokens=0) for domain in example_domains()]
    notes = " ".join(write(trainer, one_phase({"web": 0.5, "code": 0.5}, unread)).notes)
    assert "read again" not in notes


def test_levanter_tells_what_it_moved():
    schedule = example_schedule(
        phases=[
            Phase(0, 0, {"web": 1.0}),
            Phase(100, 100 * BATCH, {"web": 0.5, "code": 0.5}),
            Phase(153, 153 * BATCH, {"web": 0.9999, "code": 0.0001}),
        ],
        chunk_tokens=60 * BATCH,
    )
    exported = write("levanter", schedule)
    notes = " ".join(exported.notes)
    assert "stage 2 (from step 153) starts at step 150 instead" in notes
    assert "(-24576 tokens)" in notes
    assert "Raised to one sequence per block, below which a domain gets none: code." in notes
    assert exported.realised.start_tokens == exported.realised.start_step * BATCH


def test_levanter_tells_when_its_blocks_change():
    phases = [Phase(0, 0, {"web": 1.0}), Phase(1000, 1000 * BATCH, {"web": 0.5, "code": 0.5})]
    changed = write("levanter", example_schedule(phases=phases, chunk_tokens=100 * BATCH)).notes
    assert "mixture_block_size was 32000 before this stage" in " ".join(changed)
    kept = write("levanter", example_schedule(phases=phases)).notes
    assert "mixture_block_size was" not in " ".join(kept)


def test_a_start_that_is_not_its_step_times_the_batch_is_told():
    schedule = example_schedule(phases=[Phase(0, 0, {"web": 1.0}), Phase(10, 1000, {"web": 1.0})])
    assert any("stage 1 (from step 10) starts at token 1,000" in note for note in write("megatron", schedule).notes)


def test_the_last_stage_needs_no_phases_when_it_is_the_first():
    exported = write("megatron", one_phase({"web": 0.5, "code": 0.5}))
    assert set(exported.files) == {"megatron.txt", "megatron.json", "megatron.about.md"}
    assert "no earlier mixture" in exported.switch
    assert "callbacks" not in write("llm_foundry", one_phase({"web": 0.5, "code": 0.5})).files["llm_foundry.yaml"]
