"""What `remix` refuses, before anything is measured, by the name of what is at fault."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.remix_project import PATHS, outputs, read, remix
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import write_json
from tikmix_pipeline.parameters.remix import ExternalParameters
from tikmix_pipeline.pipelines.remix.external import given_mixture, given_prediction
from tikmix_pipeline.session.kedro_session import UserError

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"model": {"checkpoint": None}}, "remix needs model.checkpoint"),
    ({"model": {"checkpoint": "texts"}}, "holds no config.json"),
    ({"experiment": "one", "model": {"checkpoint": "checkpoints/second"}}, "was trained here, by `tikmix`"),
    ({"round": 5}, "round is 5, but this experiment has decided nothing for round 2"),
    ({"tikmix": {"strategy": "unimax"}}, "not for a checkpoint that was trained elsewhere"),
    ({"remix": {"current": "mixture.json"}}, "there is no file"),
    ({"remix": {"current": {"code": 0.5, "prose": 0.5}}}, "remix.current gives no weight for 'verse'"),
    ({"remix": {"sizes": {"vers": {"tokens": 5}}}}, "remix.sizes names the domain 'vers'"),
    ({"remix": {"remaining_tokens": 999_999}}, "remix.remaining_tokens is 999999, less than the 1000000 tokens"),
    ({"remix": {"consumed": {"cod": 5}}}, "remix.consumed names the domain 'cod'"),
    ({"remix": {"consumed": {"code": 5}}}, "remix.consumed says nothing of 'prose', 'verse'"),
    ({"reweight": {"exports": ["megatrn"]}}, "Did you mean 'megatron'?"),
    ({"reweight": {"paths": {**PATHS, "code": "my data/code"}}}, "my data/code"),
    ({"reweight": {"paths": {"vers": "x"}}}, "reweight.paths names the domain 'vers'"),
    ({"reweight": {"batch_tokens": 100}}, "no whole number of sequences"),
    ({"train": {"context": 64}}, "takes at most 32 tokens"),
    ({"influence": {"damping_unit": "horizon"}}, "does not know of a run elsewhere"),
    ({"reweight": {"batch_tokens": 64 * 20_000}}, "more than the 1000000 tokens of a chunk"),
]


@pytest.mark.parametrize(("wrong", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes_are_refused_by_name(remixed: Path, wrong: dict[str, Any], message: str) -> None:
    before = {file: file.stat().st_mtime_ns for file in outputs(remixed).rglob("*")}
    if wrong.get("experiment") == "one":
        (remixed / "data/06_models/one/round_0").mkdir(parents=True, exist_ok=True)
        recipe = {"step": "round_0.train_chunk", "code": "", "parameters": {}, "inputs": {}, "fingerprint": ""}
        write_json(remixed / "data/06_models/one/round_0.recipe.json", recipe)
    with pytest.raises(UserError) as error:
        remix(remixed, **wrong)
    assert message in str(error.value)
    assert before == {file: file.stat().st_mtime_ns for file in outputs(remixed).rglob("*")}


def test_a_mixture_of_another_experiment_is_refused(elsewhere: Path) -> None:
    other = elsewhere / "data/07_model_output/other/round_1/mixture.json"
    other.parent.mkdir(parents=True)
    shutil.copy(outputs(elsewhere) / "round_1/mixture.json", other)
    with pytest.raises(UserError, match="is a mixture of the experiment 'other', and this one is 'elsewhere'"):
        remix(elsewhere, remix={"current": "data/07_model_output/other/round_1/mixture.json"})


@pytest.mark.parametrize("content", ["web,code\n.5,.5\n", "[0.5, 0.5]", '{"weights": [1]}', '{"web": "0.5"}', "{"])
def test_a_file_that_is_no_mixture_is_told_as_the_users_own(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    message = r"remix\.current: .*mine\.json .* Give a JSON object of domains and their shares"
    with pytest.raises(TikmixError, match=message) as error:
        given_mixture(ExternalParameters(current="mine.json"), tmp_path, "elsewhere")
    assert "Delete" not in str(error.value)


def test_a_mixture_may_begin_with_a_mark_of_byte_order(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"web": 0.7, "code": 0.3}', encoding="utf-8-sig")
    given = given_mixture(ExternalParameters(current="mine.json"), tmp_path, "elsewhere")
    assert given == {"web": 0.7, "code": 0.3}


@pytest.mark.parametrize("content", ["gain", "[]", "{}", '{"kind": "other"}'])
def test_a_file_that_is_no_prediction_is_told_as_the_users_own(tmp_path: Path, content: str) -> None:
    (tmp_path / "told.json").write_text(content)
    with pytest.raises(TikmixError, match=r"remix\.prediction: .*told\.json .* whatif\.html has recorded") as error:
        given_prediction(tmp_path / "told.json")
    assert "Delete" not in str(error.value)


@pytest.mark.parametrize("wrong", ["vocabulary", "tokenizer", "pickle"])
def test_a_checkpoint_that_does_not_fit_its_tokenizer_is_refused_before_text_is_read(
    elsewhere: Path, wrong: str
) -> None:
    second = elsewhere / "checkpoints" / "second"
    corpus: dict[str, Any] = {"name": "new"}
    if wrong == "vocabulary":
        write_json(second / "config.json", {**read(second / "config.json"), "vocab_size": 280})
        message = "The tokenizer has 300 token ids, but the model in .* knows 280"
    elif wrong == "tokenizer":
        other = elsewhere / "tokenizer"
        shutil.copytree(second, other)
        content = read(other / "tokenizer.json")
        write_json(other / "tokenizer.json", {**content, "normalizer": {"type": "Lowercase"}})
        corpus["tokenizer"] = {"path": "tokenizer"}
        message = "is another than the one in"
    else:
        for file in second.glob("*.safetensors"):
            file.rename(second / "pytorch_model.bin")
        message = r"holds no model\.safetensors and no .*, but pytorch_model\.bin.*save_pretrained"
    with pytest.raises(UserError, match=message):
        remix(elsewhere, model={"checkpoint": "checkpoints/second"}, corpus=corpus)
    assert not (elsewhere / "data/03_primary/new").exists()


@pytest.mark.parametrize("source", ["empty", "short"])
def test_text_that_cannot_be_measured_is_refused_by_name(elsewhere: Path, source: str) -> None:
    file = elsewhere / "texts" / ("quiz.jsonl" if source == "empty" else "verse.jsonl")
    short = [json.dumps({"text": f"{row} mnop"}) + "\n" for row in range(30)]
    file.write_text("" if source == "empty" else "".join(short))
    named = "corpus.tasks.quiz" if source == "empty" else "'verse' has .* fewer than one window"
    with pytest.raises(UserError, match=named):
        remix(elsewhere)


def test_rounds_without_a_domain_in_common_are_refused(elsewhere: Path) -> None:
    names = {"code": None, "prose": None, "verse": None}
    domains = {f"new-{name}": {"sources": [{"kind": "files", "path": f"texts/{name}.jsonl"}]} for name in names}
    with pytest.raises(UserError, match=r"none of which has a share and is among the domains now"):
        remix(
            elsewhere,
            corpus={"name": "renamed", "domains": {**names, **domains}},
            model={"checkpoint": "checkpoints/second"},
            remix={"consumed": None, "sizes": {}},
            reweight={"paths": {}},
        )
