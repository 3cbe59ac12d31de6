from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tikmix_pipeline.lm.model import build_model, parameter_count
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.session.config import TikmixConfigLoader


def loader(folder: Path, own: dict[str, Any] | None, **runtime_params: Any) -> TikmixConfigLoader:
    base = {
        "train": {"batch_size": 16, "context": 256},
        "corpus": {"domains": {"code": {"max_megabytes": 4}, "web": {}}, "tasks": {"piqa": {}}},
    }
    for environment, values in {"base": base, "mine": own}.items():
        (folder / environment).mkdir()
        if values is not None:
            (folder / environment / "parameters.yml").write_text(yaml.safe_dump(values))
    return TikmixConfigLoader(
        str(folder),
        env="mine",
        base_env="base",
        default_run_env="local",
        runtime_params=runtime_params,
        merge_strategy={"parameters": "soft"},
    )


def test_environment_adds_to_a_group_of_parameters(tmp_path: Path) -> None:
    found = loader(tmp_path, {"train": {"context": 64}})["parameters"]
    assert found["train"] == {"batch_size": 16, "context": 64}


def test_own_domains_take_the_place_of_the_default_ones_and_tasks_stay(tmp_path: Path) -> None:
    found = loader(tmp_path, {"corpus": {"domains": {"books": {"max_megabytes": 1}}}})["parameters"]["corpus"]
    assert found == {"domains": {"books": {"max_megabytes": 1}}, "tasks": {"piqa": {}}}


def test_override_of_one_domain_keeps_the_others(tmp_path: Path) -> None:
    overrides = {"corpus": {"domains": {"code": {"max_megabytes": 1}}}}
    found = loader(tmp_path, None, **overrides)["parameters"]["corpus"]
    assert found["domains"] == {"code": {"max_megabytes": 1}, "web": {}}


def test_override_of_an_own_domain_keeps_the_rest_of_it(tmp_path: Path) -> None:
    own = {"corpus": {"domains": {"books": {"max_megabytes": 1, "contiguous_split": True}, "news": {}}}}
    overrides = {"corpus": {"domains": {"books": {"max_megabytes": 2}}}}
    found = loader(tmp_path, own, **overrides)["parameters"]["corpus"]
    assert found["domains"] == {"books": {"max_megabytes": 2, "contiguous_split": True}, "news": {}}


def test_environment_without_parameters_is_the_base(tmp_path: Path) -> None:
    assert loader(tmp_path, None)["parameters"]["corpus"]["tasks"] == {"piqa": {}}


def test_a_domain_set_to_null_is_left_out(tmp_path: Path) -> None:
    found = loader(tmp_path, None, corpus={"domains": {"web": None}})["parameters"]["corpus"]
    assert found["domains"] == {"code": {"max_megabytes": 4}}


def test_an_own_domain_set_to_null_is_left_out(tmp_path: Path) -> None:
    own = {"corpus": {"domains": {"books": {"max_megabytes": 1}, "news": {}}, "tasks": {"quiz": {}, "piqa": {}}}}
    overrides = {"corpus": {"domains": {"news": None}, "tasks": {"piqa": None}}}
    found = loader(tmp_path, own, **overrides)["parameters"]["corpus"]
    assert found == {"domains": {"books": {"max_megabytes": 1}}, "tasks": {"quiz": {}}}


@pytest.mark.parametrize("environment", ["base", "smoke", "extended", "gpu", "cluster", "smollm2"])
def test_every_environment_of_the_project_is_valid_and_has_a_model_of_the_size_it_names(environment: str) -> None:
    loader = TikmixConfigLoader(
        str(Path(__file__).parents[2] / "conf"),
        env=environment,
        base_env="base",
        default_run_env="local",
        merge_strategy={"parameters": "soft"},
    )
    parameters = RunParameters.model_validate(loader["parameters"])
    vocabulary = parameters.corpus.tokenizer.vocabulary_size
    with torch.device("meta"):
        model = build_model(parameters.model, vocabulary_size=vocabulary, context=parameters.train.context, seed=0)
    size = {"gpu": 100e6, "cluster": 1.03e9}.get(environment)
    assert size is None or parameter_count(model) == pytest.approx(size, rel=0.02)


def test_parameters_that_were_handed_out_may_be_changed_without_changing_the_next(tmp_path: Path) -> None:
    """Files are parsed once; Kedro and the checks each get values of their own."""
    loaded = loader(tmp_path, {"train": {"context": 64}})
    loaded["parameters"]["train"]["context"] = 1
    assert loaded["parameters"]["train"]["context"] == 64
