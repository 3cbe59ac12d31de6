import json
from pathlib import Path

import pytest
import torch
from lm_examples import (
    FIRST,
    MODEL,
    constant_schedule,
    differing,
    gpt2_model,
    new_state,
    tied_model,
    tiny_model,
    train_parameters,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint, save_model
from tikmix_pipeline.lm.chunk import restore_state
from tikmix_pipeline.lm.trainer import TrainingState, train_steps

READABLE = {".json", ".safetensors", ".jinja", ".txt"}


def trained(shards: TokenShards, steps: int = 2, **changes: object) -> TrainingState:
    train = train_parameters(**changes)
    state = new_state(shards, train)
    train_steps(state, train, constant_schedule(steps), last_step=steps)
    return state


@pytest.fixture
def saved(token_shards: TokenShards, tmp_path: Path) -> Checkpoint:
    return save_checkpoint(trained(token_shards), tmp_path / "round_0", token_shards.tokenizer_folder)


@pytest.mark.parametrize("build", [tiny_model, tied_model, gpt2_model])
@torch.no_grad()
def test_checkpoint_loads_anywhere_with_identical_logits(token_shards, tmp_path, build):
    train = train_parameters()
    state = new_state(token_shards, train, model=build(token_shards.vocabulary_size))
    with torch.enable_grad():
        train_steps(state, train, constant_schedule(2), last_step=2)
    save_checkpoint(state, tmp_path / "saved", token_shards.tokenizer_folder)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokens_BP = torch.arange(48).view(3, 16)
    expected = state.model.eval()(input_ids=tokens_BP).logits
    assert torch.equal(loaded.eval()(input_ids=tokens_BP).logits, expected)


def test_tokenizer_beside_the_model_reads_text_as_the_corpus_does(saved, token_shards):
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (saved.folder, token_shards.tokenizer_folder)]
    first, second = ([tokenizer.encode("kati loria shawi."), tokenizer.eos_token_id] for tokenizer in tokenizers)
    assert first == second
    saved.require_tokenizer(token_shards.tokenizer_digest)


def test_nothing_in_the_folder_is_a_pickle(saved):
    files = [path for path in saved.folder.rglob("*") if path.is_file()]
    assert {"model.safetensors", "training_state.safetensors", "tokenizer.json"} <= {path.name for path in files}
    assert {path.suffix for path in files} <= READABLE
    # a zip archive as torch.save writes it, or a bare pickle
    assert not [path.name for path in files if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_everything_the_next_step_needs_comes_back(token_shards, tmp_path, optimizer):
    state = trained(token_shards, 3, optimizer=optimizer)
    checkpoint = save_checkpoint(state, tmp_path / "saved", token_shards.tokenizer_folder)
    train = train_parameters(optimizer=optimizer)
    restored = restore_state(checkpoint, token_shards, FIRST, model=MODEL, train=train, seed=0)
    assert differing(state, restored) == []


def test_equal_states_give_equal_bytes(saved, token_shards, tmp_path):
    again = save_checkpoint(trained(token_shards), tmp_path / "again", token_shards.tokenizer_folder)
    for file in saved.folder.iterdir():
        assert file.read_bytes() == (again.folder / file.name).read_bytes(), file.name


def test_tokens_read_and_steps_are_told(saved, token_shards):
    assert saved.step == 2
    consumed = trained(token_shards).stream.consumed
    assert saved.tokens_read() == {domain: windows * 16 for domain, windows in consumed.items()}
    assert sum(saved.tokens_read().values()) == 2 * 64


def test_a_checkpoint_from_elsewhere_has_no_past(token_shards, tmp_path):
    checkpoint = save_model(tiny_model(token_shards.vocabulary_size), tmp_path / "model", token_shards.tokenizer_folder)
    assert (checkpoint.step, checkpoint.tokens_read(), checkpoint.optimizer_tensors()) == (0, {}, {})
    state = new_state(token_shards, train_parameters())
    before = state.stream.state_dict()
    checkpoint.restore(state)
    assert (state.step, state.stream.state_dict(), state.optimizer.state_tensors()) == (0, before, {})


def test_weights_of_a_checkpoint_are_float32_on_the_cpu(saved):
    assert {(p.dtype, p.device.type) for p in saved.model(MODEL).parameters()} == {(torch.float32, "cpu")}


def test_a_save_that_fails_keeps_the_checkpoint_that_was_there(saved, token_shards, monkeypatch):
    before = {file.name: file.read_bytes() for file in saved.folder.iterdir()}
    monkeypatch.setattr("tikmix_pipeline.lm.checkpoint.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(trained(token_shards, 4), saved.folder, token_shards.tokenizer_folder)
    assert {file.name: file.read_bytes() for file in saved.folder.iterdir()} == before
    assert list(saved.folder.parent.iterdir()) == [saved.folder]


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_optimizer_state_is_refused(saved, token_shards, damage):
    file = saved.folder / "training_state.safetensors"
    content = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    state = new_state(token_shards, train_parameters())
    with pytest.raises(TikmixError, match=rf"training_state\.safetensors is damaged .*Delete {saved.folder}"):
        saved.restore(state)


def test_truncated_training_state_is_refused(saved):
    file = saved.folder / "training_state.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(TikmixError, match=r"training_state\.json is not valid JSON"):
        saved.training_state()


def test_a_checkpoint_of_another_tokenizer_is_refused(saved, token_shards):
    file = saved.folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["vocab"] = dict(zip(content["model"]["vocab"], range(1, 400), strict=False))
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TikmixError, match=rf"another tokenizer .*corpus\.tokenizer\.path={saved.folder}"):
        saved.require_tokenizer(token_shards.tokenizer_digest)
    file.unlink()
    with pytest.raises(TikmixError, match=r"holds no tokenizer\.json"):
        saved.require_tokenizer(token_shards.tokenizer_digest)
