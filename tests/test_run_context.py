from typing import Any

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.run_context import check_parameters


def values(**groups: Any) -> dict[str, Any]:
    corpus = {
        "domains": {"code": {"sources": [{"kind": "standard_library"}]}},
        "tasks": {"piqa": {"sources": [{"kind": "files", "path": "piqa.jsonl"}]}},
    }
    return {"corpus": corpus, **groups}


def test_missing_groups_take_their_defaults() -> None:
    parameters = check_parameters(values())
    assert isinstance(parameters, RunParameters)
    assert (parameters.optimize.uniformity, parameters.optimize.gain, parameters.optimize.entropy) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("wrong", "path", "nearest"),
    [
        ({"optimise": {}}, "optimise", "optimize"),
        ({"optimize": {"entorpy": 1}}, "optimize.entorpy", "optimize.entropy"),
        ({"train": {"chunk_token": 1}}, "train.chunk_token", "train.chunk_tokens"),
        ({"optimize": {"bounds": {"code": {"mx": 1}}}}, "optimize.bounds.code.mx", "optimize.bounds.code.max"),
        ({"validat": {}}, "validat", "validate"),
        ({"validate": {"replicate": 2}}, "validate.replicate", "validate.replicates"),
        ({"validate": {"candidates": [{"group": []}]}}, "validate.candidates.0.group", "validate.candidates.0.groups"),
    ],
)
def test_typo_at_any_level_is_refused_with_the_nearest_name(wrong: dict[str, Any], path: str, nearest: str) -> None:
    with pytest.raises(TikmixError) as error:
        check_parameters(values(**wrong))
    assert f"{path} is not a parameter. Did you mean '{nearest}'?" in str(error.value)


def test_typo_inside_a_source_is_refused_with_the_nearest_name() -> None:
    wrong = values()
    wrong["corpus"]["tasks"]["piqa"]["sources"][0]["pth"] = "x"
    with pytest.raises(TikmixError, match=r"Did you mean 'corpus\.tasks\.piqa\.sources\.0\.path'"):
        check_parameters(wrong)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(TikmixError) as error:
        check_parameters(values(train={"learning_rate": -1}, tikmix={"rounds": 0}, seed="x"))
    assert all(name in str(error.value) for name in ("train.learning_rate", "tikmix.rounds", "seed"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(TikmixError, match=r"optimize\.entropy"):
        check_parameters(values(optimize={"entropy": value}))


def test_negative_weight_of_the_prior_is_refused() -> None:
    with pytest.raises(TikmixError, match=r"tikmix\.prior\.code: .*greater than or equal to 0, got -1"):
        check_parameters(values(tikmix={"prior": {"code": -1}}))


def test_experiment_that_would_leave_its_folder_is_refused() -> None:
    with pytest.raises(TikmixError, match="experiment"):
        check_parameters(values(experiment="../elsewhere"))
