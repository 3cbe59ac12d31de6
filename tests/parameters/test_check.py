from typing import Any

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.check import check_parameters, merged_parameters
from tikmix_pipeline.parameters.decision import SearchObjectiveParameters


def values(**groups: Any) -> dict[str, Any]:
    corpus = {
        "domains": {"code": {"sources": [{"kind": "standard_library"}]}},
        "tasks": {"piqa": {"sources": [{"kind": "files", "path": "piqa.jsonl"}]}},
    }
    return {"corpus": corpus, **groups}


def test_missing_groups_take_their_defaults() -> None:
    parameters = check_parameters(values())
    assert isinstance(parameters, RunParameters)
    optimize = parameters.optimize
    assert (optimize.uniformity, optimize.gain, optimize.entropy) == ("auto", "auto", "auto")
    assert optimize.method == "response"


def test_the_paper_s_method_has_the_paper_s_weights() -> None:
    paper = check_parameters(values(optimize={"method": "paper"})).optimize
    assert (paper.spread_weight, paper.entropy_weight, paper.entropy_anchor) == (1.0, 1.0, "uniform")


def test_gains_of_second_order_have_no_spread_and_an_entropy_relative_to_n_grams_unless_they_are_set() -> None:
    second = check_parameters(values()).optimize
    assert (second.spread_weight, second.entropy_weight, second.entropy_anchor) == (0.0, 3.0, "ngram")
    # a surrogate that is searched has no curvature of its own
    searched = second.narrowed(SearchObjectiveParameters)
    assert (searched.spread_weight, searched.entropy_weight) == (1.0, 1.0)
    set_ = check_parameters(values(optimize={"entropy": 0.1, "uniformity": 2.0})).optimize
    assert (set_.spread_weight, set_.entropy_weight) == (2.0, 0.1)
    even = check_parameters(values(optimize={"anchor": "uniform"})).optimize
    assert (even.entropy_weight, even.entropy_anchor) == (0.0, "uniform")


def test_where_no_task_decides_there_is_nothing_for_n_grams_to_make_likely() -> None:
    heldout = check_parameters(values(influence={"targets": "heldout"})).optimize
    assert (heldout.entropy_weight, heldout.entropy_anchor) == (0.0, "uniform")
    asked = check_parameters(values(influence={"targets": "heldout"}, optimize={"anchor": "ngram"})).optimize
    assert asked.entropy_anchor == "ngram"


@pytest.mark.parametrize("unit", ["nats", "percent", "bits_per_byte"])
def test_a_guardrail_in_nats_is_refused_at_once_where_no_branches_measure_them(unit: str) -> None:
    guardrails = {"mmlu": {"tolerance": 1.0, "unit": unit}}
    told = {"method": "response", "guardrails": guardrails}
    with pytest.raises(TikmixError, match=rf"guardrails\.mmlu\.unit is {unit}.*set optimize\.branches=6"):
        check_parameters(values(optimize=told))
    check_parameters(values(optimize=told | {"branches": 6}))
    check_parameters(values(optimize=told | {"method": "paper"}))  # of no matter to the paper's method


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


def test_a_plan_of_fewer_rounds_than_the_run_has_is_refused() -> None:
    assert check_parameters(values(tikmix={"rounds": 3, "planned_rounds": 3})).tikmix.total_rounds == 3
    assert check_parameters(values(tikmix={"rounds": 3})).tikmix.total_rounds == 3
    with pytest.raises(TikmixError, match=r"tikmix\.planned_rounds: .*tikmix\.rounds is 3 already.*got 2"):
        check_parameters(values(tikmix={"rounds": 3, "planned_rounds": 2}))


def test_what_is_amiss_in_a_group_is_told_without_quoting_all_of_it() -> None:
    wrong = {"compare": {"arms": ["x"]}, "corpus": {"tasks": {"piqa": {"max_items": 300}}}}
    with pytest.raises(TikmixError) as error:
        check_parameters(wrong)
    assert "- corpus.tasks.piqa.sources: field required\n" in str(error.value)
    assert "- compare: arms: x has no definition" in str(error.value)
    assert "got" not in str(error.value)


def test_negative_weight_of_the_prior_is_refused() -> None:
    with pytest.raises(TikmixError, match=r"tikmix\.prior\.code: .*greater than or equal to 0, got -1"):
        check_parameters(values(tikmix={"prior": {"code": -1}}))


def test_experiment_that_would_leave_its_folder_is_refused() -> None:
    with pytest.raises(TikmixError, match="experiment"):
        check_parameters(values(experiment="../elsewhere"))


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"prior": "uniform"}, {"prior": {"code": 1.0}}, {"prior": {"code": 1.0}}),
        ({"prior": {"code": 1.0}}, {"prior": "uniform"}, {"prior": "uniform"}),
        ({"a": 1}, {"a": None}, {"a": None}),
        ({"a": {}}, {}, {"a": {}}),
    ],
)
def test_what_is_set_last_holds_and_all_else_stays(old: Any, new: Any, merged: Any) -> None:
    before = repr((old, new))
    assert merged_parameters(old, new) == merged
    assert repr((old, new)) == before


def comparison(**compare: Any) -> Any:
    return check_parameters(values(compare=compare)).compare


DEFINED = {name: {"tikmix.strategy": "direct"} for name in ("proportional", "b", "a")}


def test_arms_and_tasks_are_named_on_the_command_line_with_a_plus() -> None:
    found = comparison(definitions=DEFINED, arms="a+proportional", out_of_domain="piqa+siqa", seeds=2)
    assert found.chosen == ["proportional", "a"], "in the order of their definitions"
    assert found.out_of_domain == ["piqa", "siqa"]
    assert found.seeds == [0, 1]
    assert comparison(definitions=DEFINED).chosen == ["proportional", "b", "a"]


def test_last_two_fifths_of_the_tasks_judge_unless_told_otherwise() -> None:
    assert comparison().judging_only(list("abcde")) == ["d", "e"]
    assert comparison().judging_only(list("abcdefgh")) == ["f", "g", "h"]
    assert comparison().judging_only(list("ab")) == []
    assert comparison(out_of_domain=["a"]).judging_only(list("abcde")) == ["a"]


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ({"definitions": DEFINED, "arms": "a+c"}, "c has no definition; there are proportional, b, a"),
        ({"definitions": {"start": {}}}, "'start' is the name of the round that all arms share"),
        ({"definitions": {"Wild Arm": {}}}, "compare.definitions"),
        ({"definitions": {}}, "compare.definitions"),
        ({"seeds": [1, 1]}, "a seed is given twice"),
        ({"seeds": 0}, "compare.seeds"),
        ({"seeds": [-1]}, "compare.seeds"),
        ({"seeds": True}, "compare.seeds"),
        ({"workers": 0}, "compare.workers"),
        ({"arm": "a"}, "Did you mean 'compare.arms'?"),
    ],
)
def test_wrong_comparison_is_refused(compare: dict[str, Any], message: str) -> None:
    with pytest.raises(TikmixError) as error:
        comparison(**compare)
    assert message in str(error.value)


def test_the_old_name_of_rebalancing_works_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    parameters = check_parameters(values(influence={"rebalance_tokens": 10_000}))
    assert parameters.influence.rebalancing_steps(parameters.train) == 3  # of 4,096 tokens
    assert "influence.rebalance_tokens has become influence.rebalance_steps" in caplog.text
    assert check_parameters(values()).influence.rebalancing_steps(parameters.train) == 40


@pytest.mark.parametrize(("given", "taken"), [(True, "true"), ("true", "true"), ("empirical", "empirical")])
def test_the_true_fisher_can_be_asked_for_on_the_command_line(given: object, taken: str) -> None:
    """Which makes a truth value of `influence.fisher=true`."""
    assert check_parameters(values(influence={"fisher": given})).influence.fisher == taken
