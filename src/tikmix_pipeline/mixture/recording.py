"""From a decision to the record of the mixture that a round trains under, and to rows in the catalog of mixtures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.mixture.influence_matrix import gain_scale
from tikmix_pipeline.mixture.records import (
    DecisionCost,
    DecisionRecord,
    Gains,
    GainUnit,
    MixtureRecord,
    TaskGain,
    TokenBudget,
)
from tikmix_pipeline.mixture.simplex import by_name, check_mixture, prior_mixture, round_to_simplex
from tikmix_pipeline.parameters.decision import (
    PriorParameters,
    RoundingParameters,
    StepBoundsParameters,
)

if TYPE_CHECKING:
    import pandas as pd


_LEAST = 0.05
"""Of a task's best gain over the prior, the least that a share over the current mixture is of."""


def record_mixture(
    weights: Mapping[str, float], *, round_number: int, strategy: str, decimals: int, budget: TokenBudget
) -> MixtureRecord:
    """Return the record of the mixture that round `round_number` trains under, the budget being that before it.

    Raises:
        TikmixError: the weights are no mixture of these domains.
    """
    weights_K = check_mixture(weights, budget.domains, f"the mixture of round {round_number}")
    rounded = by_name(budget.domains, round_to_simplex(weights_K, decimals))
    tokens = {domain: int(np.rint(weight * budget.chunk_tokens)) for domain, weight in rounded.items()}
    return MixtureRecord(
        round=round_number,
        strategy=strategy,
        chunk_tokens=budget.chunk_tokens,
        weights=rounded,
        tokens=tokens,
        epochs={
            domain: (supply.consumed + tokens[domain]) / supply.available
            for domain, supply in budget.supplies().items()
        },
    )


def record_prior(
    tokens: Mapping[str, int],
    *,
    prior: PriorParameters,
    rounding: RoundingParameters,
    chunk_tokens: int,
) -> MixtureRecord:
    """Return the record of mixture 0 of a corpus with so many training tokens of each domain.

    Raises:
        TikmixError: the prior is no mixture of these domains.
    """
    weights = prior_mixture(prior.prior, tokens)
    nothing = dict.fromkeys(tokens, 0)
    budget = TokenBudget(round=-1, available=tokens, consumed=nothing, chunk_tokens=chunk_tokens, current=weights)
    return record_mixture(weights, round_number=0, strategy="prior", decimals=rounding.decimals, budget=budget)


def record_decision(
    decision: DecisionRecord, budget: TokenBudget, prior: MixtureRecord, *, strategy: str, rounding: RoundingParameters
) -> MixtureRecord:
    """Return the record of the next round's mixture: the decided one, or the prior where that is the strategy."""
    is_prior = strategy == "prior"
    record = record_mixture(
        prior.weights if is_prior else decision.weights,
        round_number=decision.round,
        strategy=strategy,
        decimals=rounding.decimals,
        budget=budget,
    )
    decided: dict[str, Any] = {} if is_prior else {"expected_gain": decision.expected_gain, "binding": decision.binding}
    if decision.gain_scale is not None and not is_prior:
        decided |= {"gain_scale": decision.gain_scale}
    if decision.kept is not None:
        decided |= {"direct_weights": decision.direct_weights, "kept": decision.kept}
    return record.model_copy(update=decided)


def keep_mixture(
    mixture: MixtureRecord, budget: TokenBudget, bounds: StepBoundsParameters, rounding: RoundingParameters
) -> MixtureRecord:
    """Return the record of a round's mixture for the next one too, as far as there is text for it."""
    current_K = check_mixture(mixture.weights, budget.domains, "the current mixture")
    return record_mixture(
        by_name(budget.domains, budget.step_bounds(bounds).project(current_K)),
        round_number=mixture.round + 1,
        strategy=mixture.strategy,
        decimals=rounding.decimals,
        budget=budget,
    )


def mixture_table(record: MixtureRecord) -> "pd.DataFrame":
    """Return a record's rows in the catalog of mixtures."""
    import pandas as pd

    domains = list(record.weights)
    return pd.DataFrame(
        {
            "round": record.round,
            "strategy": record.strategy,
            "domain": domains,
            "weight": [record.weights[domain] for domain in domains],
            "epochs": [record.epochs[domain] for domain in domains],
            "tokens": [record.tokens[domain] for domain in domains],
        }
    )


def baseline_record(
    strategy: str,
    weights: Mapping[str, float],
    *,
    notes: tuple[str, ...],
    cost: Mapping[str, float],
    details: Mapping[str, Any],
) -> DecisionRecord:
    """Return what is recorded of a baseline, which decides once, after the first round; it took tokens and flops."""
    return DecisionRecord(
        strategy=strategy,
        round=1,
        weights=weights,
        expected_gain={},
        binding=(),
        notes=notes,
        cost=DecisionCost.from_json(cost),
        details=details,
    )


def gains_record(
    gains: Mapping[str, tuple[float, float]],
    unconstrained: Mapping[str, tuple[float, float]] | None = None,
    *,
    unit: GainUnit = "share",
) -> Gains:
    """Return what each task is expected to gain over the current mixture, given with its standard error in that unit.

    So it is of the decided mixture; the gain of the one that nothing constrains is there where it is known.
    """
    free = {task: {"unconstrained_gain": gain} for task, (gain, _) in (unconstrained or {}).items()}
    return Gains(
        tasks={
            task: TaskGain(gain=gain, stderr=error, unit=unit, **free.get(task, {}))
            for task, (gain, error) in gains.items()
        }
    )


def second_order_gains_record(
    decision: DecisionRecord, errors: Mapping[str, float], *, calibration: float | None
) -> Gains:
    """Return what each task is expected to gain over the current mixture by a decision of second order.

    In nats where branches or the calibration have told their scale, else as shares of the best possible. The errors
    are in the units of S, and leave out that of the scale.

    Raises:
        ValueError: the decision is not of second order.
    """
    unit_of, unit = gain_units(decision, calibration)
    second_order = decision.second_order
    if second_order is None:
        raise ValueError("the decision is not of second order")

    def told(gains: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        return {task: (gain / unit_of[task], errors[task] / unit_of[task]) for task, gain in gains.items()}

    return gains_record(
        told(second_order.gain_over_current),
        told(second_order.unconstrained_gain_over_current),
        unit=unit,
    )


def first_order_gains_record(
    decision: DecisionRecord,
    before: Mapping[str, float],
    after: Mapping[str, float],
    errors: Mapping[str, float],
    *,
    calibration: float | None,
) -> Gains:
    """Return what each task is expected to gain over the current mixture `before`, by the effects that decided.

    In nats by the calibration; without one, as shares of the best possible. The errors are in the units of S.

    Raises:
        ValueError: the decision does not say its effects.
    """
    effects, free = decision.effect, decision.unconstrained
    if effects is None:
        raise ValueError("the decision does not say what it rests on")
    scale_T = gain_scale(np.array([list(row.values()) for row in effects.values()]))
    units = dict(
        zip(effects, scale_T.tolist() if calibration is None else [1 / calibration] * len(effects), strict=True)
    )

    def told(weights: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        return {
            task: (
                sum(row[domain] * (weights[domain] - before[domain]) for domain in row) / units[task],
                errors[task] / units[task],
            )
            for task, row in effects.items()
        }

    unit: GainUnit = "share" if calibration is None else "nats"
    return gains_record(told(after), None if free is None else told(free.weights), unit=unit)


def gain_units(decision: DecisionRecord, calibration: float | None) -> tuple[dict[str, float], GainUnit]:
    """Return what gains over the current mixture are divided by, task by task, and the unit that they are in then.

    Raises:
        ValueError: the decision is not of second order.
    """
    second_order, scale_of = decision.second_order, decision.gain_scale
    if second_order is None or scale_of is None:
        raise ValueError("the decision is not of second order")
    nats = second_order.scale if second_order.scale is not None else calibration
    if nats is not None:
        return dict.fromkeys(scale_of, 1 / nats), "nats"
    # the best over the current mixture, which has some of the best over the prior already
    already = {task: decision.expected_gain[task] - gain for task, gain in second_order.gain_over_current.items()}
    return {task: max(best - already[task], _LEAST * best) for task, best in scale_of.items()}, "share"
