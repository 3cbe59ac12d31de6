"""What every node that trains branches needs: their learning rates, and what they depend on."""

from collections.abc import Callable, Mapping
from typing import Any

from tikmix_pipeline.parameters import InfluenceParameters, RunParameters, TrainParameters
from tikmix_pipeline.parameters.training import NOT_OF_A_BRANCH
from tikmix_pipeline.store.code import code_of


def branch_schedule(train: TrainParameters, *, steps: int, anneal: bool, rounds: int, number: int) -> Any:
    """Return the schedule in which a round follows round `number`, as it would were one more to come.

    Args:
        train: the run's.
        steps: optimiser steps of a branch.
        anneal: let the rate fall to zero over these steps.
        rounds: of the run.
        number: the round that branches start from the end of.
    """
    from tikmix_pipeline.lm.schedule import Schedule

    schedule = Schedule.of(train, max(rounds, number + 2))
    return schedule.annealed((number + 1) * schedule.chunk_steps, steps) if anneal else schedule


def branch_rates(train: TrainParameters, *, steps: int, anneal: bool, rounds: int, number: int) -> dict[str, float]:
    """Return first and last learning rate of a branch, and their sum over its steps: its horizon."""
    schedule = branch_schedule(train, steps=steps, anneal=anneal, rounds=rounds, number=number)
    first = (number + 1) * schedule.chunk_steps
    last = first + steps - 1
    ends = {"first": schedule.factor(first), "last": schedule.factor(last), "sum": schedule.rate_sum(first, last + 1)}
    return {name: train.learning_rate * factor for name, factor in ends.items()}


_OF_TARGETS = {"targets", "tasks", "task_loss"}
_OF_HELDOUT = {"tokens", "items_per_task", "micro_batches"}
"""Parameters of `influence` that say which windows of a held-out slice it is measured on."""


def relevant_to_branches(parameters: RunParameters, rates: Mapping[str, float]) -> dict[str, Any]:
    """Return the values that change branches and their scores, but for those of the pipeline that trains them."""
    return relevant_to_branch_training(parameters, rates) | {"influence": relevant_to_scores(parameters.influence)}


def relevant_to_scores(influence: InfluenceParameters) -> dict[str, Any]:
    """Return the values that say on which text branches, proxies and n-gram models are scored."""
    heldout = _OF_HELDOUT if influence.targets != "tasks" else set()
    return influence.model_dump(mode="json", include=_OF_TARGETS | heldout)


def relevant_to_branch_training(parameters: RunParameters, rates: Mapping[str, float]) -> dict[str, Any]:
    """Return the values that change what a branch ends with, whatever it is scored on."""
    return {
        "train": parameters.train.model_dump(mode="json", exclude=NOT_OF_A_BRANCH) | {"rates": rates},
        "model": parameters.model.model_dump(mode="json", include={"attention"}),
        "seed": parameters.seed,
    }


def branch_code() -> str:
    """Return the digest of all code that a branch and its scores depend on, and of the libraries it runs on."""
    return code_key(_train_a_branch)


def code_key(function: Callable[..., Any]) -> str:
    """Return the digest of all code that a function runs, and of the libraries it runs on."""
    code = code_of(function)
    return f"{code.digest} {sorted(code.libraries.items())}"


def _train_a_branch() -> Any:
    """Stand for what a branch depends on; never called, only read."""
    from tikmix_pipeline.lm.branch_pool import train_and_score

    return train_and_score
