import importlib.util
import shlex
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from gguf_examples import TEXTS, byte_tokenizer, write_gguf
from lm_examples import MODEL, tied_model, tiny_model
from tokenizers import pre_tokenizers

from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer, load_tokenizer
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.gguf import convert_gguf, main, require_converted
from tikmix_pipeline.lm.model import load_model, read_config


@pytest.fixture(scope="module")
def tokenizer() -> CorpusTokenizer:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tokenizer: CorpusTokenizer) -> Path:
    """A whole file, not to be changed."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.v1.gguf", tiny_model(), tokenizer)


@pytest.mark.parametrize("build", [tiny_model, tied_model])
def test_a_model_comes_back_weight_by_weight(tmp_path: Path, tokenizer: CorpusTokenizer, build):
    model = build()
    assert convert_gguf(write_gguf(tmp_path / "tiny.gguf", model, tokenizer), tmp_path / "made" / "here")
    loaded = load_model(tmp_path / "made" / "here", MODEL)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in model.state_dict().items())
    ids = torch.arange(320).view(20, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=1e-6)


def test_the_folder_is_a_checkpoint_with_its_tokenizer_and_says_where_it_came_from(
    tmp_path: Path, file: Path, tokenizer: CorpusTokenizer
):
    convert_gguf(file, tmp_path / "made")
    checkpoint, loaded = Checkpoint(tmp_path / "made"), load_tokenizer(tmp_path / "made")
    assert loaded.encode(TEXTS) == tokenizer.encode(TEXTS)
    assert loaded.end_of_text_id == tokenizer.end_of_text_id
    checkpoint.require_tokenizer(loaded.digest)
    checkpoint.require_context(16)
    checkpoint.require_known_ids(loaded.vocabulary_size)
    assert checkpoint.architecture == "LlamaForCausalLM"
    config = read_json(checkpoint.folder / "config.json")
    assert "quantization_config" not in config
    assert "A title, and no path" not in str(config)
    assert read_json(checkpoint.folder / "gguf.json")["file"] == "tiny.v1.gguf"


def test_the_padding_id_of_a_file_freezes_no_embedding(tmp_path: Path, file: Path):
    convert_gguf(file, tmp_path / "made")
    assert read_json(tmp_path / "made" / "config.json")["pad_token_id"] is None


def test_what_lies_beside_the_file_has_no_say(tmp_path: Path, file: Path, tokenizer: CorpusTokenizer):
    shutil.copy(file, tmp_path / "tiny.gguf")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "adapter_config.json"):
        (tmp_path / name).write_text("{}")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "made")
    assert load_tokenizer(tmp_path / "made").encode(TEXTS) == tokenizer.encode(TEXTS)


def test_text_is_cut_at_digits_where_the_models_own_tokenizer_does(tmp_path: Path, tokenizer: CorpusTokenizer):
    convert_gguf(write_gguf(tmp_path / "tiny.gguf", tiny_model(), tokenizer, cut="smollm"), tmp_path / "made")
    backend = CorpusTokenizer.of(tokenizer.backend, 0, {}).backend
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    expected = [backend.encode(text).ids for text in TEXTS]
    assert load_tokenizer(tmp_path / "made").encode(TEXTS) == expected != tokenizer.encode(TEXTS)


def test_an_unknown_way_of_cutting_text_is_told(
    tmp_path: Path, tokenizer: CorpusTokenizer, caplog: pytest.LogCaptureFixture
):
    convert_gguf(write_gguf(tmp_path / "tiny.gguf", tiny_model(), tokenizer, cut="own-way"), tmp_path / "made")
    assert "cuts text by 'own-way', which transformers does not know" in caplog.text


def test_a_second_conversion_finds_the_first_and_another_file_is_refused(
    tmp_path: Path, file: Path, tokenizer: CorpusTokenizer
):
    folder = tmp_path / "made"
    folder.mkdir()
    assert convert_gguf(file, folder)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert not convert_gguf(file, folder)
    other = write_gguf(tmp_path / "other.gguf", tiny_model(seed=1), tokenizer)
    with pytest.raises(TikmixError, match=r"made is there already, and is not what .*other\.gguf was converted to"):
        convert_gguf(other, folder)
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(TikmixError, match="is there already"):
        convert_gguf(file, other)


def test_a_folder_that_lost_its_weights_is_no_conversion(tmp_path: Path, file: Path):
    convert_gguf(file, tmp_path / "made")
    (tmp_path / "made" / "model.safetensors").unlink()
    with pytest.raises(TikmixError, match="is there already"):
        convert_gguf(file, tmp_path / "made")


def wrong_file(tmp_path: Path, whole: Path, wrong: str) -> Path:
    path, content = tmp_path / "wrong.gguf", whole.read_bytes()
    match wrong:
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("once upon a time, in another format")
        case "version":
            path.write_bytes(content[:4] + struct.pack("<I", 1) + content[8:])
        case _:
            path.write_bytes(content[: int(wrong)])
    return path


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("folder", "There is no file"),
        ("text", "is not a GGUF file, or not a whole one"),
        ("version", "is not a GGUF file, or not a whole one .*v1"),
        ("0", "is not a GGUF file, or not a whole one"),
        ("3", "is not a GGUF file, or not a whole one"),
        ("20", "is not a GGUF file, or not a whole one"),
        ("700", "is not a GGUF file, or not a whole one"),
        ("3000", "is not a GGUF file, or not a whole one"),
        ("-1", "is truncated: .* bytes. Copy it again"),
        ("-50000", "is truncated: .* bytes. Copy it again"),
    ],
)
def test_a_file_that_is_something_else_or_ends_early_is_refused(tmp_path: Path, file: Path, wrong: str, message: str):
    path = wrong_file(tmp_path, file, wrong)
    with pytest.raises(TikmixError, match=message) as error:
        convert_gguf(path, tmp_path / "made")
    assert str(path) in str(error.value)
    assert {entry.name for entry in tmp_path.iterdir()} == {"wrong.gguf"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gpt-unheard-of"}, "cannot read the model of the architecture 'gpt-unheard-of'"),
        ({"architecture": "t5encoder"}, "cannot read the model of the architecture 't5encoder'"),
        ({"tokenizer": None}, "holds no tokenizer"),
        ({"split__count": 3}, r"is one of 3 parts\. Join them"),
        (
            {"leave_out": "model.layers.1.mlp.up_proj.weight"},
            r"cannot read the weights of .*1 of the model's weights are missing, model\.layers\.1\.mlp\.up_proj",
        ),
    ],
)
def test_a_file_that_makes_no_checkpoint_is_refused_by_what_it_lacks(
    tmp_path: Path, tokenizer: CorpusTokenizer, changes: dict[str, Any], message: str
):
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), **{"tokenizer": tokenizer, **changes})
    with pytest.raises(TikmixError, match=message) as error:
        convert_gguf(path, tmp_path / "made")
    assert str(path) in str(error.value)
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiny.gguf"}


def test_a_full_disk_is_refused_before_weights_are_read(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(TikmixError, match=r"Weights in float32 need .* MB in .*made, but only 0 MB are free"):
        convert_gguf(file, tmp_path / "made")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), None])
def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None
):
    folder = tmp_path / "made"
    if error is None:
        (tmp_path / "plain").write_text("a file where a folder is to be")
        folder = tmp_path / "plain" / "made"
    else:

        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr("tikmix_pipeline.lm.gguf.write_json", fail)
    before = list(tmp_path.iterdir())
    told = r"made cannot be written \(.*another disk" if error is None else "made: the disk is full"
    with pytest.raises(TikmixError, match=told):
        convert_gguf(file, folder)
    assert list(tmp_path.iterdir()) == before


def test_what_is_not_installed_names_the_extra(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name))
    with pytest.raises(TikmixError, match=r'needs gguf: run `pip install -e "\.\[gguf\]"`'):
        convert_gguf(file, tmp_path / "made")


def test_a_mistake_on_the_command_line_ends_in_one_message(tmp_path: Path):
    ended = CliRunner().invoke(main, [str(tmp_path / "nowhere.gguf"), str(tmp_path / "made")])
    assert ended.exit_code == 1
    assert ended.output.startswith(f"Error: There is no file {tmp_path / 'nowhere.gguf'}. ")
    assert ended.output.count("\n") == 1


@pytest.mark.parametrize("given", ["file", "folder"])
@pytest.mark.parametrize("read", [load_model, read_config])
def test_a_gguf_file_in_a_checkpoints_place_names_the_command_that_converts_it(
    tmp_path: Path, file: Path, given: str, read: Any
):
    copy = tmp_path / "a name with spaces" / "tiny.v1.gguf"
    copy.parent.mkdir()
    shutil.copy(file, copy)
    with pytest.raises(TikmixError, match=r"^model\.checkpoint: .*tiny\.v1\.gguf is a GGUF file") as error:
        read(copy if given == "file" else copy.parent, MODEL)
    python, option, module, *arguments = shlex.split(str(error.value).split("`")[1])
    assert [python, option, module] == ["python", "-m", "tikmix_pipeline.lm.gguf"]
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 0, ended.output
    assert f"model.checkpoint={arguments[1]}" in ended.output
    assert str(error.value).endswith(f"give {arguments[1]}.")
    read(Path(arguments[1]), MODEL)


def test_a_checkpoint_with_a_gguf_file_beside_it_is_a_checkpoint(tmp_path: Path, file: Path):
    convert_gguf(file, tmp_path / "made")
    shutil.copy(file, tmp_path / "made" / "tiny.gguf")
    require_converted(tmp_path / "made", "model.checkpoint")
    load_model(tmp_path / "made", MODEL)
