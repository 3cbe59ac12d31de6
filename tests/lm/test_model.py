import json
from pathlib import Path

import pytest
import torch
from lm_examples import MODEL, gpt2_model, tied_model, tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel, BloomConfig, Gemma2Config, MambaConfig

from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.model import build_model, load_model, outline_model, parameter_count
from tikmix_pipeline.lm.presets import PRESETS
from tikmix_pipeline.parameters import ModelParameters

# millions of parameters that the name promises, and a vocabulary that fits the size
PROMISED = {
    "llama-1m": (1, 2048),
    "llama-3m": (3, 2048),
    "llama-10m": (10, 2048),
    "llama-50m": (50, 32_000),
    "llama-100m": (100, 32_000),
    "llama-300m": (300, 50_304),
    "llama-1b": (1_000, 32_000),
}


def on_meta(preset: str, vocabulary_size: int):
    with torch.device("meta"):
        return build_model(ModelParameters(preset=preset), vocabulary_size=vocabulary_size, context=256, seed=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_on_the_meta_device(preset):
    model, shape = on_meta(preset, 512), PRESETS[preset]
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float32, "meta")}
    assert len(model.model.layers) == shape.layers
    assert shape.width % shape.heads == shape.heads % shape.key_value_heads == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_a_preset_are_counted_without_building_it(preset):
    assert PRESETS[preset].parameter_count(512) == parameter_count(on_meta(preset, 512))


@pytest.mark.parametrize("preset", PROMISED)
def test_presets_have_about_the_parameters_that_their_names_promise(preset):
    millions, vocabulary_size = PROMISED[preset]
    assert parameter_count(on_meta(preset, vocabulary_size)) / 1e6 == pytest.approx(millions, rel=0.3)


def test_presets_grow_in_the_order_they_are_listed():
    counts = [parameter_count(on_meta(preset, 2048)) for preset in PRESETS]
    assert counts == sorted(counts)
    assert PROMISED.keys() | {"llama-tiny"} == PRESETS.keys()


def test_tied_parameters_count_once():
    assert parameter_count(tiny_model()) - parameter_count(tied_model()) == 320 * 32


def test_seed_decides_the_initial_weights_and_nothing_around_it():
    first, other = tiny_model(seed=3), tiny_model(seed=4)
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    again = tiny_model(seed=3)
    assert torch.equal(torch.rand(3), expected)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


@pytest.mark.parametrize("build", [tiny_model, tied_model])
def test_every_embedding_learns(build):
    """transformers would freeze the one of a padding token, and padding carries no loss anyway."""
    model = build()
    model(input_ids=torch.arange(320).view(20, 16)).logits.square().sum().backward()
    assert (model.get_input_embeddings().weight.grad.abs().sum(dim=1) > 0).all()


def test_every_embedding_of_a_loaded_model_learns_whatever_its_padding_id(tmp_path: Path):
    """In many models it is the token that ends a document."""
    model = tiny_model()
    model.config.pad_token_id = 2
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, MODEL)
    loaded(input_ids=torch.arange(320).view(20, 16)).logits.square().sum().backward()
    assert (loaded.get_input_embeddings().weight.grad.abs().sum(dim=1) > 0).all()


def test_unknown_preset_names_the_nearest():
    with pytest.raises(
        TikmixError, match=r"model\.preset: 'llama-10n' is not a built-in size\. Did you mean 'llama-10"
    ):
        build_model(ModelParameters(preset="llama-10n"), vocabulary_size=9, context=8, seed=0)
    with pytest.raises(TikmixError, match=r"The names are 'llama-tiny', .*'llama-1b'"):
        build_model(ModelParameters(preset="opt"), vocabulary_size=9, context=8, seed=0)


def test_device_auto_takes_what_is_there():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda:63", "tpu", ""])
def test_device_that_is_not_there_is_named(device):
    with pytest.raises(TikmixError, match=f"Device '{device}' cannot be used .*`device` parameter to auto"):
        resolve_device(device)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("build", [tiny_model, tied_model, gpt2_model])
def test_a_saved_model_of_any_family_loads_with_the_same_weights(tmp_path: Path, build, attention):
    model = build()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, ModelParameters(attention=attention))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in model.state_dict().items())
    assert loaded.config._attn_implementation == attention


def test_a_half_precision_checkpoint_is_trained_in_float32(tmp_path: Path):
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load_model(tmp_path, MODEL).parameters()} == {torch.float32}
    assert {p.dtype for p in load_model(tmp_path, MODEL, dtype=torch.float64).parameters()} == {torch.float64}


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(
        TikmixError, match=r"model\.checkpoint: .*nowhere holds no config\.json.* save_pretrained wrote"
    ):
        load_model(tmp_path / "nowhere", MODEL)


def test_missing_weights_are_not_made_up(tmp_path: Path):
    tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TikmixError, match=r"lacks 1 of the model's weights, model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(tmp_path, MODEL)


def test_layers_that_the_configuration_does_not_count_are_not_dropped(tmp_path: Path):
    tiny_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(
        TikmixError, match=r"9 weights of layers that its config\.json does not count, model\.layers\.1"
    ):
        load_model(tmp_path, MODEL)


def test_weights_that_no_layer_uses_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"value_head.weight": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    load_model(tmp_path, MODEL)
    assert "1 weights that its architecture does not use, value_head.weight among them" in caplog.text


@pytest.mark.parametrize("read", [load_model, outline_model])
def test_a_model_that_sees_what_it_predicts_is_refused(tmp_path: Path, read):
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, is_decoder=True
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    read(tmp_path, MODEL)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"is_decoder": False}))
    with pytest.raises(TikmixError, match=r"of the type 'bert' .* sees the text behind a token.*causal language model"):
        read(tmp_path, MODEL)


@pytest.mark.parametrize("build", [tiny_model, tied_model, gpt2_model])
def test_an_outline_has_the_names_and_shapes_of_the_model_and_no_weights(tmp_path: Path, build):
    model = build()
    model.half().save_pretrained(tmp_path)
    outline = outline_model(tmp_path, MODEL)
    shapes = [(name, p.shape, p.dtype) for name, p in load_model(tmp_path, MODEL).named_parameters()]
    assert [(name, p.shape, p.dtype) for name, p in outline.named_parameters()] == shapes
    assert {p.device.type for p in outline.parameters()} == {"meta"}


def test_an_outline_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(TikmixError, match=r"holds no config\.json, and so no checkpoint"):
        outline_model(tmp_path, MODEL)


@pytest.mark.parametrize(
    ("config", "options"), [(Gemma2Config, {"head_dim": 16}), (MambaConfig, {}), (BloomConfig, {})]
)
def test_an_architecture_without_the_fused_attention_says_what_to_set_and_is_read_then(tmp_path: Path, config, options):
    small = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "n_layer": 1}
    AutoModelForCausalLM.from_config(config(**small, n_head=2, **options)).save_pretrained(tmp_path)
    for read in (load_model, outline_model):
        with pytest.raises(TikmixError, match=rf"{tmp_path} cannot be read .*Set model\.attention=eager"):
            read(tmp_path, MODEL)
        assert read(tmp_path, ModelParameters(attention="eager")).num_parameters() > 0


def test_code_that_comes_with_a_checkpoint_is_not_run_unasked(tmp_path: Path):
    tiny_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    code = {"model_type": "zebra9", "auto_map": {"AutoConfig": "zebra.Config", "AutoModelForCausalLM": "zebra.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config | code))
    (tmp_path / "zebra.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    with pytest.raises(TikmixError, match=r"set model\.trust_remote_code=true"):
        load_model(tmp_path, MODEL)
    assert not (tmp_path / "executed").exists()
