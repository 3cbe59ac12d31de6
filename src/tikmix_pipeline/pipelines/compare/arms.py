"""The arms of a comparison: what each of them is told, and what its run is expected to make.

An arm is an ordinary run of the loop with some parameters of its own, as the experiment `<experiment>.<arm>.<seed>`.
The last round of an arm decides nothing, as no chunk follows it.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tikmix_pipeline.errors import TikmixError, require_known
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.base import ParameterGroup
from tikmix_pipeline.parameters.check import check_parameters, merged_parameters
from tikmix_pipeline.parameters.comparison import START, PointParameters
from tikmix_pipeline.pipelines.cached_node import expected_records
from tikmix_pipeline.pipelines.checks import check_run
from tikmix_pipeline.pipelines.tikmix.pipeline import loop_of
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.provenance import ProvenanceRecord, flatten

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
        siblings: experiments whose artifacts this one may reuse.
    """

    name: str
    seed: int
    experiment: str
    overrides: Mapping[str, Any]
    siblings: tuple[str, ...] = ()


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
        "tikmix.verdict": False,  # the comparison gives its own
    }
    # a worker of the pool can start none of its own, here or on a cluster
    alone = {"engine.kind": "local"} | dict.fromkeys(_worker_counts(parameters), 1)
    names = [START, *compare.chosen]
    siblings = tuple(f"{parameters.experiment}.{other}.{seed}" for other in names if other != name)
    return Arm(name, seed, str(settled["experiment"]), nested({**settled, **own, **alone}), siblings)


def _worker_counts(group: ParameterGroup, prefix: str = "") -> Iterator[str]:
    """Yield the names of the parameters that say how many workers a stage of an arm may have."""
    for name, field in type(group).model_fields.items():
        value, told_as = getattr(group, name), f"{prefix}{field.alias or name}"
        if name == "workers":
            yield told_as
        elif isinstance(value, ParameterGroup) and name not in _SHARED:
            yield from _worker_counts(value, f"{told_as}.")


def arms_without(compare: PointParameters, *names: str) -> list[str]:
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
    require_known("compare.out_of_domain", "task", judging, tasks)
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


def run_of(comparison: Run, arm: Arm) -> Run:
    """Return an arm's run, derived from that of the comparison.

    Raises:
        TikmixError: the arm sets what is not a parameter, or a value that is not allowed, or lets a task decide that
            should only judge.
    """
    values = merged_parameters(comparison.parameters.model_dump(mode="json"), arm.overrides)
    try:
        parameters = check_parameters(values)
    except TikmixError as error:
        raise TikmixError(f"compare.definitions.{arm.name}: {error}") from None
    tasks = list(parameters.corpus.tasks)
    judging = comparison.parameters.compare.judging_only(tasks)
    for task in parameters.influence.tasks or tasks:
        if task in judging:
            raise TikmixError(
                f"compare.definitions.{arm.name}: influence.tasks lets '{task}' decide, which compare.out_of_domain "
                "keeps for the verdict. Take it out of one of the two."
            )
    return comparison.with_parameters(parameters)


def records_of_arm(run: Run) -> dict[str, ProvenanceRecord]:
    """Return the provenance record of every artifact of an arm's run."""
    return expected_records(loop_of(run))


def fingerprints(comparison: Run) -> Iterator[tuple[str, str]]:
    """Yield each arm's experiment with the fingerprint of what its run ends with."""
    for arm in arms_of(comparison.parameters):
        yield arm.experiment, records_of_arm(run_of(comparison, arm))["final_evaluation"].fingerprint


def check_arms(comparison: Run) -> None:
    """Refuse a comparison of which an arm could not run.

    Raises:
        TikmixError: naming the arm and what is wrong with its parameters, or a task of lm-eval's that is not there.
    """
    parameters = comparison.parameters
    harness = parameters.compare.harness
    if harness.enabled:
        from tikmix_pipeline.lm.lm_eval import check_lm_eval

        check_lm_eval(harness, parameters.corpus.tasks, comparison.root)
    for arm in arms_of(parameters):
        run = run_of(comparison, arm)
        try:
            check_run(run)
        except TikmixError as error:
            raise TikmixError(f"compare.definitions.{arm.name}: {error}") from None
