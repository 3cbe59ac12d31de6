"""Names of the datasets of a round, and of what several places know of a comparison, in one place."""

from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.run import Run

COMPARISON_FIGURES = [
    f"comparison_{name}_figure" for name in ("differences", "trade_off", "loss", "mixtures", "stability", "influence")
]
"""In the order in which they are drawn."""


def of_round(number: int, name: str) -> str:
    """Return the dataset `name` of round `number`, as the catalog's patterns spell it."""
    return f"round_{number}_{name}"


def of_kept_round(number: int, name: str) -> str:
    """Return the dataset `name` of round `number` as it would be had the prior been kept (`tikmix.verdict`)."""
    return of_round(number, f"kept_{name}")


def measured_checkpoint(run: Run, number: int) -> str:
    """Return what influence is measured at: the round's checkpoint, or a copy of it in balance with the prior."""
    parameters = run.parameters
    steps = parameters.influence.rebalancing_steps(parameters.train)
    in_balance = number == 0 or parameters.tikmix.strategy == "prior" or not steps
    return of_round(number, "checkpoint" if in_balance else "balanced")


def influences(run: Run, number: int) -> list[str]:
    """Return the influence tables that the decision of round `number` rests on, its own last."""
    return [of_round(earlier, "influence") for earlier in run.averaged_rounds(number)]


def domain_products(run: Run, number: int) -> list[str]:
    """Return the products between domains that the decision of round `number` rests on, its own last, if any."""
    return _of_second_order(run, number, "domain_products")


def parts_of_influence(run: Run, number: int) -> list[str]:
    """Return the influence by gradient chunk that tells whether the decision of round `number` is one of noise."""
    return _of_second_order(run, number, "part_influence")


def _of_second_order(run: Run, number: int, name: str) -> list[str]:
    if run.parameters.optimize.method != "response":
        return []
    return [of_round(earlier, name) for earlier in counted_rounds(run, number)]


def counted_rounds(run: Run, number: int) -> list[int]:
    """Return the rounds whose measurements have a say in the decision of round `number`, its own last."""
    return [number] if run.parameters.tikmix.memory == "none" else run.averaged_rounds(number)


def deciding_rounds(run: Run) -> int:
    """Return how many rounds decide on the mixture of the next; after them it is kept."""
    # a single stage of a round beyond the loop decides as one within it would
    within = run.parameters.tikmix.deciding_rounds
    return within if within < run.parameters.tikmix.rounds else run.rounds


def chosen_decision(run: Run, number: int) -> str:
    """Return whose decision at the end of round `number` counts."""
    strategy = run.parameters.tikmix.strategy
    if strategy in BASELINES:
        return of_round(number, "baseline")
    return of_round(number, "sweep_decision" if strategy == "surrogate" else "decision")


def decision_costs(run: Run, rounds: int) -> list[tuple[int, str]]:
    """Return what says the cost of the decisions of the first `rounds` rounds, each with the round that it is for."""
    parameters = run.parameters
    strategy, optimize = parameters.tikmix.strategy, parameters.optimize
    if strategy == "prior":
        return []  # what is measured under it decides nothing
    if strategy in BASELINES:
        return [(1, chosen_decision(run, 0))]
    names = ["measurement"]
    if optimize.method == "response" and optimize.branches:
        names.append("response_cost")
    if strategy == "surrogate" and parameters.sweep.response == "lookahead":
        names.append("sweep_cost")
    return [(number + 1, of_round(number, name)) for number in range(rounds) for name in names]
