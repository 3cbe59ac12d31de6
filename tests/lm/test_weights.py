import json
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from lm_examples import MODEL, tiny_model
from safetensors.torch import load_file, save_file
from troublesome_checkpoints import (
    edit,
    save_sharded,
    save_stale,
    save_tied,
    save_twin,
    save_with_adapter,
    shards_of,
)

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.model import load_model, outline_model, parameter_count
from tikmix_pipeline.lm.weights import require_loadable, saved_shapes, weight_files

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    "save", [save_twin, save_stale, save_sharded, partial(save_tied, equal=True), partial(save_tied, equal=False)]
)
def test_counted_and_outlined_is_what_is_loaded_whatever_lies_beside_it(tmp_path: Path, save):
    folder = save(tmp_path / "saved")
    loaded, outline = load_model(folder, MODEL), outline_model(folder, MODEL)
    assert Checkpoint(folder).parameter_count(MODEL) == parameter_count(loaded)
    shapes = [(name, p.shape) for name, p in loaded.named_parameters()]
    assert [(name, p.shape) for name, p in outline.named_parameters()] == shapes


def test_files_beside_the_weights_are_none_of_them(tmp_path: Path):
    assert weight_files(save_twin(tmp_path / "twin")) == shards_of(tmp_path / "twin")
    assert weight_files(save_stale(tmp_path / "stale")) == [tmp_path / "stale" / "model.safetensors"]
    assert len(shards_of(tmp_path / "stale")) > 1


def test_a_head_that_is_saved_apart_from_the_embedding_it_should_share_is_its_own(tmp_path: Path):
    apart = outline_model(save_tied(tmp_path / "apart", equal=False), MODEL)
    assert apart.lm_head.weight is not apart.model.embed_tokens.weight
    same = outline_model(save_tied(tmp_path / "same", equal=True), MODEL)
    assert same.lm_head.weight is same.model.embed_tokens.weight


def test_shapes_come_from_the_headers_of_all_shards(tmp_path: Path):
    saved = saved_shapes(save_sharded(tmp_path))
    assert saved == {name: tuple(value.shape) for name, value in tiny_model().state_dict().items()}


@pytest.mark.parametrize("method", ["bitsandbytes", "fp8", "gptq"])
@pytest.mark.parametrize("field", ["quantization_config", "compression_config"])
def test_quantised_weights_are_refused_by_their_method(tmp_path: Path, method: str, field: str):
    tiny_model().save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **{field: {"quant_method": method}})
    for function in (load_model, outline_model):
        with pytest.raises(
            TikmixError, match=rf"weights in {tmp_path} are quantised \({field} .*{method}\).*dequantize"
        ):
            function(tmp_path, MODEL)


def test_an_adapter_beside_the_model_is_not_left_out_in_silence(tmp_path: Path):
    folder = save_with_adapter(tmp_path)
    for function in (load_model, outline_model):
        with pytest.raises(
            TikmixError, match=r"an adapter lies beside the model .*merge_and_unload.*move adapter_config"
        ):
            function(folder, MODEL)
    (folder / "config.json").unlink()
    with pytest.raises(TikmixError, match=r"an adapter without its model .*merge_and_unload"):
        require_loadable(folder)


def test_a_missing_shard_is_named_where_the_user_keeps_it(tmp_path: Path):
    missing = shards_of(save_sharded(tmp_path))[1]
    missing.unlink()
    with pytest.raises(TikmixError, match=rf"{missing} is missing \(1 of the \d files that {INDEX}"):
        load_model(tmp_path, MODEL)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "a/b.safetensors", "..", "model.bin", 3])
def test_an_index_names_no_file_outside_its_folder(tmp_path: Path, name: object):
    save_sharded(tmp_path / "saved")
    tiny_model().save_pretrained(tmp_path)  # where the path leads, there are weights
    index = json.loads((tmp_path / "saved" / INDEX).read_text())
    edit(tmp_path / "saved" / INDEX, weight_map=dict.fromkeys(index["weight_map"], name))
    with pytest.raises(TikmixError, match=r"only safetensors files in the same folder are read"):
        load_model(tmp_path / "saved", MODEL)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "{}", '{"weight_map": []}', '{"weight_map": {}}', "\x00", "[" * 10**5]
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: str):
    (save_sharded(tmp_path) / INDEX).write_text(content)
    with pytest.raises(TikmixError, match=rf"model\.checkpoint: .*{INDEX}"):
        load_model(tmp_path, MODEL)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "{}", '{"model_type": 3}', '{"model_type": []}', "\x00", "[" * 10**5]
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, content: str):
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(TikmixError, match=r"(?s)model.*config\.json"):
        load_model(tmp_path, MODEL)


@pytest.mark.parametrize(
    "values",
    [{"hidden_size": "x"}, {"num_attention_heads": 0}, {"vocab_size": -1}, {"hidden_act": "y"}, {"rope_parameters": 3}],
)
def test_a_configuration_of_nonsense_is_refused(tmp_path: Path, values: dict[str, object]):
    tiny_model().save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **values)
    with pytest.raises(TikmixError, match=f"The checkpoint in {tmp_path} cannot be read"):
        load_model(tmp_path, MODEL)


class Executed:
    """What a pickle would run."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.safetensors"])
def test_a_pickle_is_never_read(tmp_path: Path, name: str, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(pickle.dumps(Executed()))
    with pytest.raises(TikmixError, match=rf"holds no model\.safetensors .*but {name}.*save_pretrained"):
        load_model(tmp_path, MODEL)
    (tmp_path / name).rename(tmp_path / "model.safetensors")
    with pytest.raises(TikmixError, match=r"is no safetensors file, or a damaged one"):
        load_model(tmp_path, MODEL)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kept", [0, 4, 8, 200, -1])
def test_a_truncated_file_of_weights_is_refused_by_its_header(tmp_path: Path, kept: int):
    tiny_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    for function in (require_loadable, partial(outline_model, parameters=MODEL), partial(load_model, parameters=MODEL)):
        with pytest.raises(TikmixError, match=rf"{file} is no safetensors file, or a damaged one"):
            function(tmp_path)


def test_a_flipped_byte_of_a_header_never_loads_other_weights(tmp_path: Path):
    tiny_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content, weights = file.read_bytes(), load_file(file)
    header = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for place in [*range(8), *range(8, header, 61)]:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            loaded = load_model(tmp_path, MODEL).state_dict()
        except TikmixError:
            refused += 1
        else:
            assert all(torch.equal(loaded[name], value) for name, value in weights.items()), place
    assert refused > 20


def test_an_unknown_architecture_is_told_with_the_user_s_path(tmp_path: Path):
    tiny_model().save_pretrained(tmp_path)
    edit(tmp_path / "config.json", model_type="zebra9")
    for function in (load_model, outline_model):
        with pytest.raises(TikmixError, match=rf"the model in {tmp_path} is of the type 'zebra9' .* does not know"):
            function(tmp_path, MODEL)


def test_what_is_wrong_with_an_adopted_checkpoint_is_told_of_the_folder_that_was_given(tmp_path: Path):
    given, adopted = tmp_path / "given", tmp_path / "adopted"
    tiny_model().save_pretrained(given)
    weights = load_file(given / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, given / "model.safetensors", {"format": "pt"})
    adopted.mkdir()
    for file in given.iterdir():
        (adopted / file.name).symlink_to(file)
    with pytest.raises(TikmixError, match=f"The checkpoint in {given} lacks 1 of the model's weights"):
        load_model(adopted, MODEL)


def test_a_folder_of_links_as_hub_caches_have_them_is_named_itself(tmp_path: Path):
    (tmp_path / "snapshot").mkdir()
    tiny_model().save_pretrained(tmp_path / "blobs")
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(Path("..", "blobs", file.name))
    assert load_model(tmp_path / "snapshot", MODEL).num_parameters() == tiny_model().num_parameters()
    edit(tmp_path / "blobs" / "config.json", model_type="zebra9")
    with pytest.raises(TikmixError, match=f"the model in {tmp_path / 'snapshot'} is of the type 'zebra9'"):
        load_model(tmp_path / "snapshot", MODEL)
