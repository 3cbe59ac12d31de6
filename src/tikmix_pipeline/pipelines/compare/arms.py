"""The arms of a comparison: what each of them is told, and what its run is expected to make.

An arm is an ordinary run of the loop with some parameters of its own, as the experiment `<experiment>.<arm>.<seed>`.
The last round of an arm decides nothing, as no chunk follows it.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tikmix_pipeline.datasets.recipes import Recipe, flatten
from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.parameters import CompareParameters, RunParameters
from tikmix_pipeline.parameters.comparison import START
from tikmix_pipeline.run_context import RunContext, as_current, beside, check_parameters, merged_parameters, run_context

_SHARED = {"experiment", "seed", "round", "corpus", "compare", "engine"}
"""What no arm has of its own."""


@dataclass(frozen=True)
class Arm:
    """One run of a comparison.

    Attributes:
        name: of the arm, or `START`: the first round, which every arm of the seed goes on from.
        seed: of initial weights and data order.
        experiment: names the run's folders.
        overrides: what the run is told differently from the comparison, nested like the parameters.
        lenders: experiments that this one may share artifacts with.
    """

    name: str
    seed: int
    experiment: str
    overrides: Mapping[str, Any]
    lenders: tuple[str, ...] = ()


def arms_of(parameters: RunParameters) -> list[Arm]:
    """Return all runs of a comparison, seed by seed; those that train the shared first rounds come first.

    Raises:
        TikmixError: the reference is not among the arms, no mixture could follow the first round, a task that should
            only judge is not there or is the last, or an arm sets what all have in common.
    """
    compare = parameters.compare
    if parameters.tikmix.rounds == 1:
        raise TikmixError("tikmix.rounds is 1: all arms share the first round. Raise it to 2 or more.")
    if compare.reference not in compare.chosen:
        raise TikmixError(
            f"compare.reference is '{compare.reference}', which is not among the arms: {', '.join(compare.chosen)}. "
            "Add it to compare.arms, or name one of them."
        )
    # what an arm settles once would be settled differently by another arm's measurement, if it came first
    starts = [_arm(parameters, START, seed, {"tikmix.strategy": "proportional"}) for seed in compare.seeds]
    return [
        *starts,
        *(_arm(parameters, name, seed, compare.definitions[name]) for seed in compare.seeds for name in compare.chosen),
    ]


def _arm(parameters: RunParameters, name: str, seed: int, own: Mapping[str, Any]) -> Arm:
    compare = parameters.compare
    own = flatten(own)
    for key in own:
        if key.split(".")[0] in _SHARED:
            raise TikmixError(
                f"compare.definitions.{name}: {key} is the same for all arms. Set it outside compare.definitions."
            )
    rounds = own.get("tikmix.rounds", parameters.tikmix.rounds)
    settled = {
        "experiment": f"{parameters.experiment}.{name}.{seed}",
        "seed": seed,
        "round": None,
        "influence.tasks": deciding_tasks(parameters),
        "tikmix.decisions": max(1, rounds - 1) if isinstance(rounds, int) else None,
        "tikmix.prior": parameters.tikmix.prior,
    }
    # a worker of the pool has no workers of its own, here or on a cluster
    alone = {"sweep.workers": 1, "baselines.regmix.workers": 1, "engine.kind": "local"}
    names = [START, *compare.chosen]
    lenders = tuple(f"{parameters.experiment}.{other}.{seed}" for other in names if other != name)
    return Arm(name, seed, str(settled["experiment"]), nested({**settled, **own, **alone}), lenders)


def arms_without(compare: CompareParameters, *names: str) -> list[str]:
    """Return the arms that set none of these parameters, or groups of them."""

    def sets_any(arm: str) -> bool:
        return any(f"{key}.".startswith(f"{name}.") for key in flatten(compare.definitions[arm]) for name in names)

    return [arm for arm in compare.chosen if not sets_any(arm)]


def deciding_tasks(parameters: RunParameters) -> list[str]:
    """Return the tasks whose query halves decide.

    Raises:
        TikmixError: `compare.out_of_domain` names an unknown task, or leaves none to decide.
    """
    tasks = list(parameters.corpus.tasks)
    judging = parameters.compare.judging_only(tasks)
    for task in judging:
        if task not in tasks:
            raise TikmixError(
                f"compare.out_of_domain names the task '{task}', which is not there.{nearest_name(task, tasks)}"
            )
    deciding = [task for task in parameters.influence.tasks or tasks if task not in judging]
    if not deciding:
        raise TikmixError("compare.out_of_domain leaves no task to decide on. Take some out of it.")
    return deciding


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested mappings; of two that exclude each other the last holds."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        branch = functools.reduce(lambda inner, part: {part: inner}, reversed(name.split(".")), value)
        tree = merged_parameters(tree, branch)
    return tree


def context_of(arm: Arm) -> RunContext:
    """Return the context of an arm's run, derived from that of the comparison.

    Raises:
        TikmixError: the arm sets what is not a parameter, or a value that is not allowed, or lets a task decide that
            should only judge.
    """
    context = run_context()
    values = merged_parameters(context.parameters.model_dump(mode="json"), arm.overrides)
    try:
        parameters = check_parameters(values)
    except TikmixError as error:
        raise TikmixError(f"compare.definitions.{arm.name}: {error}") from None
    tasks = list(parameters.corpus.tasks)
    judging = context.parameters.compare.judging_only(tasks)
    for task in parameters.influence.tasks or tasks:
        if task in judging:
            raise TikmixError(
                f"compare.definitions.{arm.name}: influence.tasks lets '{task}' decide, which compare.out_of_domain "
                "keeps for the verdict. Take it out of one of the two."
            )
    return beside(context, parameters)


def recipes_of_arm(arm: Arm) -> dict[str, Recipe]:
    """Return the recipe of every artifact of an arm's run."""
    from tikmix_pipeline.pipelines.recipes import recipes_of
    from tikmix_pipeline.pipelines.tikmix.pipeline import create_pipeline

    context = context_of(arm)
    with as_current(context):
        return recipes_of(create_pipeline(), context.parameters, context.root)


def fingerprints(arms: list[Arm]) -> Iterator[tuple[str, str]]:
    """Yield each arm's experiment with the fingerprint of what its run ends with."""
    for arm in arms:
        yield arm.experiment, recipes_of_arm(arm)["final_evaluation"].fingerprint
