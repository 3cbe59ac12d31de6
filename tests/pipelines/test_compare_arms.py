"""The arms of a comparison: what each is told, and which definitions are refused."""

from pathlib import Path
from typing import Any

import pytest
from kedro.framework.startup import bootstrap_project

from tests.pipelines.test_compare import COMPARE, LONG
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.pipelines.compare.arms import arms_of, check_arms, nested, run_of
from tikmix_pipeline.run import Run, current_run
from tikmix_pipeline.session.kedro_session import TikmixSession
from tikmix_pipeline.store.provenance import flatten


@pytest.fixture(scope="module")
def run(finished_project: Path) -> Run:
    """A comparison in the experiment `new`."""
    bootstrap_project(finished_project)
    params = {"experiment": "new", "tikmix": LONG, "compare": COMPARE}
    with TikmixSession.create(project_path=finished_project, env="tiny", runtime_params=params) as session:
        session.load_context()
    return current_run()


def checked(run: Run, definition: dict[str, Any], **changes: Any) -> None:
    """Check a comparison of the reference with one arm."""
    definitions = run.parameters.compare.definitions | {"mine": definition}
    own: dict[str, Any] = {"definitions": definitions, "arms": ["proportional", "mine"], **changes}
    values = run.parameters.model_dump() | {"compare": run.parameters.compare.model_dump() | own}
    check_arms(run.with_parameters(type(run.parameters).model_validate(values)))


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"tikmix.strategi": "direct"}, "tikmix.strategi is not a parameter. Did you mean 'tikmix.strategy'?"),
        ({"optimise.entropy": 1.0}, "optimise is not a parameter. Did you mean 'optimize'?"),
        ({"tikmix.strategy": "dirct"}, "tikmix.strategy: input should be 'direct'"),
        ({"tikmix.strategy.kind": "direct"}, "tikmix.strategy: input should be 'direct'"),
        ({"optimize.entropy": -1.0}, "optimize.entropy: input should be greater than or equal to 0, got -1"),
        ({"tikmix.rounds": "many"}, "tikmix.rounds: input should be a valid integer"),
        ({"tikmix.prior": {"code": 0.5, "pros": 0.5}}, "Did you mean 'prose'?"),
        ({"optimize.bounds.vers.max": 0.5}, "Did you mean 'verse'?"),
        ({"train.decay_tokens": 100_000}, "are longer than the whole run"),
        ({"sweep.choose": "measured"}, "set response=lookahead"),
        ({"baselines.regmix.preset": "llama-tinny"}, "baselines.regmix.preset: 'llama-tinny' is not a built-in size"),
        ({"seed": 7}, "seed is the same for all arms"),
        ({"experiment": "mine"}, "experiment is the same for all arms"),
        ({"corpus.name": "mine"}, "corpus.name is the same for all arms"),
        ({"influence.tasks": ["quiz", "riddle"]}, "influence.tasks lets 'riddle' decide"),
        ({"influence.tasks": None}, "influence.tasks lets 'riddle' decide"),
    ],
)
def test_wrong_definition_is_refused_with_the_name_of_its_arm(
    run: Run, definition: dict[str, Any], message: str
) -> None:
    with pytest.raises(TikmixError) as error:
        checked(run, definition)
    assert str(error.value).startswith("compare.definitions.mine: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "direct"}, "compare.reference is 'direct', which is not among the arms: proportional, mine"),
        (
            {"out_of_domain": ["ridle"]},
            "compare.out_of_domain names the task 'ridle', which is not there. Did you mean",
        ),
        ({"out_of_domain": ["quiz", "riddle"]}, "leaves no task to decide on"),
        ({"harness": {"tasks": ["tikmix_quis"]}}, "Did you mean 'tikmix_quiz'?"),
        (
            {"harness": {"tasks": ["tikmix"], "include_path": "nowhere"}},
            "compare.harness.include_path: there is no folder",
        ),
    ],
)
def test_comparison_that_cannot_judge_is_refused(run: Run, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TikmixError) as error:
        checked(run, {}, **changes)
    assert message in str(error.value)


def test_arm_with_rounds_of_its_own_decides_in_all_but_the_last(run: Run) -> None:
    compare = run.parameters.compare.model_copy(update={"definitions": {"proportional": {"tikmix.rounds": 5}}})
    parameters = run.parameters.model_copy(update={"compare": compare})
    assert {run_of(run, arm).parameters.tikmix.decisions for arm in arms_of(parameters)[2:]} == {4}


def test_arms_differ_from_the_comparison_in_what_they_say_and_in_nothing_else(run: Run) -> None:
    starts, arms = arms_of(run.parameters)[:2], arms_of(run.parameters)[2:]
    assert [arm.experiment for arm in starts] == ["new.start.0", "new.start.1"]
    assert [arm.seed for arm in arms] == [0] * 4 + [1] * 4, "seed by seed"
    whole = run.parameters.model_dump()
    for arm in arms:
        own = run_of(run, arm)
        assert own.parameters.experiment == f"new.{arm.name}.{arm.seed}"
        assert own.parameters.seed == arm.seed
        groups = {group for group, value in own.parameters.model_dump().items() if value != whole[group]}
        known = {"experiment", "seed", "influence", "tikmix", "optimize", "sweep", "baselines", "validate"}
        assert groups - known == ({"train"} if arm.name == "wild" else set())


def test_dotted_names_become_groups_and_the_last_word_holds() -> None:
    assert nested({"a.b": 1, "a.c.d": 2, "e": {}}) == {"a": {"b": 1, "c": {"d": 2}}, "e": {}}
    assert nested({"tikmix.prior": "proportional", "tikmix.prior.code": 1.0}) == {"tikmix": {"prior": {"code": 1.0}}}


def test_no_stage_of_an_arm_starts_workers_within_its_worker(run: Run) -> None:
    for arm in arms_of(run.parameters):
        told = flatten(run_of(run, arm).parameters.model_dump())
        counts = {name: count for name, count in told.items() if name.endswith(".workers")}
        assert counts.pop("compare.workers")
        assert {"optimize.workers", "sweep.workers", "baselines.mixmin.workers"} <= set(counts)
        assert set(counts.values()) == {1}
