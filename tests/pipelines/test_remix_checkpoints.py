"""Checkpoints as they are found: what `remix` measures of them, or refuses before text is read."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pipelines.remix_project import outputs, read, remix
from tikmix_pipeline.files import write_json
from tikmix_pipeline.session.kedro_session import UserError


def reported_parameters(project: Path, experiment: str = "elsewhere") -> int:
    return int(read(project / f"data/08_reporting/{experiment}/report.json")["parameters"])


def test_the_same_weights_under_other_names_change_neither_the_round_nor_the_count(elsewhere: Path) -> None:
    first, before = elsewhere / "checkpoints" / "first", reported_parameters(elsewhere)
    shards = sorted(first.glob("model-*.safetensors"))
    assert len(shards) > 1
    twin = {f"copy.{name}": value for shard in shards for name, value in load_file(shard).items()}
    assert sum(value.numel() for value in twin.values()) == before
    save_file(twin, first / "consolidated.safetensors")
    remix(elsewhere, experiment="elsewhere", optimize={"max_change": 0.2})
    assert reported_parameters(elsewhere) == before
    assert not (outputs(elsewhere) / "round_1/gains.json").exists()


def test_a_head_saved_apart_from_the_embedding_that_it_is_tied_to_is_measured_as_it_is_loaded(elsewhere: Path) -> None:
    second, before = elsewhere / "checkpoints" / "second", reported_parameters(elsewhere)
    write_json(second / "config.json", {**read(second / "config.json"), "tie_word_embeddings": True})
    remix(elsewhere, experiment="apart", model={"checkpoint": "checkpoints/second"})
    assert reported_parameters(elsewhere, "apart") == before


def test_a_token_beyond_the_embedding_is_no_harm_until_a_text_makes_it(
    elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second = elsewhere / "checkpoints" / "second"
    content = read(second / "tokenizer.json")
    added = {**content["added_tokens"][0], "id": 300, "content": "[PAD]"}
    write_json(second / "tokenizer.json", {**content, "added_tokens": [*content["added_tokens"], added]})
    corpus: dict[str, Any] = {"name": "padded"}
    groups = {"groups": "linear+elementwise"}
    remix(elsewhere, experiment="padded", model={"checkpoint": "checkpoints/second"}, corpus=corpus, influence=groups)
    assert re.search(r"influence\.groups leaves out \d\d % of the model's parameters", caplog.text)
    write_json(
        second / "tokenizer.json", {**content, "added_tokens": [*content["added_tokens"], {**added, "special": False}]}
    )
    verse = elsewhere / "texts" / "verse.jsonl"
    with verse.open("a") as stream:
        stream.writelines(json.dumps({"text": f"mnopq [PAD] {row} rqpon"}) + "\n" for row in range(30))
    with pytest.raises(
        UserError, match=r"corpus\.domains\.verse uses the token id 300, but the model in .*second knows 300"
    ):
        remix(elsewhere, experiment="used", model={"checkpoint": "checkpoints/second"}, corpus={"name": "used"})


def _lose_a_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def _quantise(folder: Path) -> None:
    write_json(folder / "config.json", {**read(folder / "config.json"), "quantization_config": {"quant_method": "fp8"}})


def _put_an_adapter_beside(folder: Path) -> None:
    write_json(folder / "adapter_config.json", {"peft_type": "LORA"})
    save_file({"lora_A.weight": torch.zeros(4, 32)}, folder / "adapter_model.safetensors")


def _damage(folder: Path) -> None:
    file = sorted(folder.glob("model-*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_lose_a_shard, r"checkpoints/first/model-00002-of-\d+\.safetensors is missing"),
        (_quantise, r"the weights in .*checkpoints/first are quantised \(quantization_config .*fp8\)"),
        (_put_an_adapter_beside, r"an adapter lies beside the model \(.*checkpoints/first/adapter_config\.json\)"),
        (_damage, r"checkpoints/first/model-00001-of-\d+\.safetensors is no safetensors file, or a damaged one"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_text_is_read(
    elsewhere: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(elsewhere / "checkpoints" / "first")
    with pytest.raises(UserError, match=message):
        remix(elsewhere, corpus={"name": "new"})
    assert not (elsewhere / "data/03_primary/new").exists()


def test_an_unknown_architecture_is_told_by_the_folder_that_was_given(elsewhere: Path) -> None:
    second = elsewhere / "checkpoints" / "second"
    write_json(second / "config.json", {**read(second / "config.json"), "model_type": "zebra9"})
    with pytest.raises(UserError, match=r"the model in .*/checkpoints/second is of the type 'zebra9'"):
        remix(elsewhere, experiment="unknown", model={"checkpoint": "checkpoints/second"})
