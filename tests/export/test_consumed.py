"""What a trainer's state says was read becomes `remix.consumed`; what says nothing is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tikmix_pipeline import __main__ as command
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.consumed import read_consumed

CONTEXT = 256
PATHS = {"books": "data/books_text", "web": "data/web_text"}
DESCRIPTION = "0a1b-BlendedDataset-train-description.txt"


@pytest.fixture
def megatron(tmp_path: Path) -> Path:
    """The cache of a blend of ten samples, as Megatron-core 0.16.1 writes it: three in ten are books."""
    sets = [{"class": "GPTDataset", "dataset_path": path, "sequence_length": CONTEXT} for path in PATHS.values()]
    described = {"class": "BlendedDataset", "datasets": sets, "split": "train", "weights": [0.3, 0.7], "size": 10}
    (tmp_path / DESCRIPTION).write_text(json.dumps(described), encoding="utf-8")
    index = np.array([1, 0, 1, 1, 0, 1, 1, 0, 1, 1], np.int16)
    np.save(tmp_path / DESCRIPTION.replace("description.txt", "dataset_index.npy"), index)
    return tmp_path


@pytest.fixture
def nanotron(tmp_path: Path) -> Path:
    """The metadata of a checkpoint in the second stage."""
    tokens = [{PATHS["web"]: 600}, {f"{PATHS['books']}/": 100, PATHS["web"]: 300}]
    stages = [{"name": f"stage {k}", "consumed_tokens_per_dataset_folder": one} for k, one in enumerate(tokens)]
    content = {"metas": {"consumed_train_samples": 4, "data_stages": stages}}
    (tmp_path / "checkpoint_metadata.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def trainer_state(folder: Path, **content: object) -> Path:
    (folder / "trainer_state.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("samples", "books"), [(1, 0), (5, 2), (10, 3)])
def test_the_first_samples_of_a_blend_are_counted_by_data_set(megatron, samples, books):
    consumed = read_consumed("megatron", megatron, samples)
    assert consumed.named(PATHS) == {"books": books * CONTEXT, "web": (samples - books) * CONTEXT}
    assert consumed.total == samples * CONTEXT


def test_stages_are_added_up_by_folder(nanotron):
    assert read_consumed("nanotron", nanotron).named(PATHS) == {"books": 100, "web": 900}


def test_a_state_that_knows_of_no_domains_gives_the_tokens_in_all(tmp_path):
    state = trainer_state(tmp_path, num_input_tokens_seen=20480)
    assert read_consumed("llama_factory", state).named(PATHS) == 20480


def test_without_paths_a_domain_is_called_by_its_path(nanotron):
    assert set(read_consumed("nanotron", nanotron).named({})) == {"data/books_text/", "data/web_text"}


def test_what_was_read_and_is_no_domain_is_named(nanotron):
    with pytest.raises(TikmixError, match=r"has read 'data/books_text/', which is the path of no domain"):
        read_consumed("nanotron", nanotron).named({"web": "data/web_text"})


@pytest.mark.parametrize(("samples", "message"), [(None, "--samples"), (0, "from 1"), (11, "a blend of 10 samples")])
def test_samples_are_of_the_blend(megatron, samples, message):
    with pytest.raises(TikmixError, match=message):
        read_consumed("megatron", megatron, samples)


def test_the_blend_of_another_run_in_one_cache_is_not_guessed(megatron):
    (megatron / f"9{DESCRIPTION}").write_text("{}", encoding="utf-8")
    with pytest.raises(TikmixError, match=rf"several: {DESCRIPTION}, 9{DESCRIPTION}"):
        read_consumed("megatron", megatron, 5)
    assert read_consumed("megatron", megatron / DESCRIPTION, 5).total == 5 * CONTEXT


def test_an_index_that_holds_pickles_is_refused(megatron):
    np.save(megatron / DESCRIPTION.replace("description.txt", "dataset_index.npy"), np.array([{}], dtype=object))
    with pytest.raises(TikmixError, match="does not describe a blend with its index"):
        read_consumed("megatron", megatron, 1)


@pytest.mark.parametrize("trainer", ["megatron", "nanotron", "llama_factory"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"metas": {"data_stages": []}}', '{"num_input_tokens_seen": 0}'])
def test_a_state_that_says_nothing_is_refused(tmp_path, trainer, content):
    file = tmp_path / "state"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(TikmixError, match=str(file)):
        read_consumed(trainer, file, 1)


def test_a_folder_without_a_state_is_refused(tmp_path):
    with pytest.raises(TikmixError, match=r"There is no checkpoint_metadata\.json at"):
        read_consumed("nanotron", tmp_path)


def test_a_trainer_that_keeps_no_count_is_refused_with_those_that_do(tmp_path):
    with pytest.raises(TikmixError, match=r"'levanter' has read is told by none of its files.*'nanotron'"):
        read_consumed("levanter", tmp_path)


def test_the_command_prints_what_goes_into_parameters(nanotron, capsys, monkeypatch):
    parameters = nanotron / "parameters.yml"
    parameters.write_text(yaml.safe_dump({"reweight": {"paths": PATHS}}), encoding="utf-8")
    words = ["tikmix", "consumed", "nanotron", str(nanotron), "--paths", str(parameters)]
    monkeypatch.setattr(sys, "argv", words)
    command.main()
    assert yaml.safe_load(capsys.readouterr().out) == {"remix": {"consumed": {"books": 100, "web": 900}}}


def test_the_command_says_which_file_gives_no_paths(nanotron, monkeypatch):
    file = nanotron / "checkpoint_metadata.json"
    monkeypatch.setattr(sys, "argv", ["tikmix", "consumed", "nanotron", str(nanotron), "--paths", str(file)])
    with pytest.raises(SystemExit, match=rf"Error: --paths: {file} gives no reweight\.paths"):
        command.main()
