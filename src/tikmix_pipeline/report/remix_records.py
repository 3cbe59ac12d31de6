"""What the report of `remix` says, put together from what a round has recorded."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tikmix_pipeline.errors import quoted
from tikmix_pipeline.influence.records import CurvatureReport
from tikmix_pipeline.influence.report import Measurement
from tikmix_pipeline.mixture.deciding_effects import effect_rows
from tikmix_pipeline.mixture.decision import holder, in_words, told_constraints, tolerance_in_words
from tikmix_pipeline.mixture.guardrails import EACH, EVERYTHING
from tikmix_pipeline.mixture.records import (
    BindingRecord,
    DecisionRecord,
    Gains,
    GainUnit,
    MixtureRecord,
    SecondOrderRecord,
    TokenBudget,
)
from tikmix_pipeline.parameters.decision import DirectParameters
from tikmix_pipeline.report.reasons import decided_on, falling
from tikmix_pipeline.report.remix_report import Cell, Cost, DomainRow, ExportRow, RemixReport, TaskRow

_NAMED = 3
"""Most domains that a task's row names at either end."""
_MOVED = 5e-4
"""Weight from which on the unconstrained mixture counts as another."""
_FLOPS_PER_PARAMETER_AND_TOKEN = 6
"""What training takes: two forward, four backward (Kaplan et al. 2020, section 2.1)."""
_SOURCES = {"estimated": "estimated from a sample"}
_SECOND_ORDER = "TiKMiX-D, by influence to second order"
_STRATEGIES = {"direct": "TiKMiX-D, direct optimisation", "surrogate": "TiKMiX-M, a regression over mixtures"}
_GUARDED = {EVERYTHING: "Held-out text of all domains together", EACH: "Held-out text of each domain"}
_IN_BALANCE = (
    "The checkpoint was measured as it is. It is in balance with the mixture it was last trained under, so a domain "
    "that was read a lot of late seems to help less than more of it would."
)


@dataclass(frozen=True)
class RoundRecords:
    """What a round has recorded, as its artifacts hold it."""

    budget: TokenBudget
    current: MixtureRecord
    mixture: MixtureRecord
    """The one that was decided."""
    decision: DecisionRecord
    """The one that counts: TiKMiX-D's, or TiKMiX-M's."""
    gains: Gains
    measurement: Measurement
    influence: Sequence[Mapping[str, Any]]
    """Rows of `influence.parquet`."""
    exports: Sequence[Mapping[str, Any]]
    """`exports.json`."""
    rounds: int = 1
    """How many measurements the decision is the mean of."""


def report_from_records(
    records: RoundRecords,
    optimize: DirectParameters,
    *,
    checkpoint: str,
    model: str,
    parameters: int,
    experiment: str,
    seed: int,
    version: str,
    without_path: tuple[str, ...] = (),
) -> RemixReport:
    """Return the report of a round that was decided under the constraints of `optimize`.

    `without_path` are the domains that `reweight.paths` does not have.
    """
    budget, binding = records.budget, records.decision.binding
    domains = _domain_rows(records, optimize, _held_by(binding, "lower", "upper"))
    moved = [abs(row.unconstrained - row.recommended) for row in domains if row.unconstrained is not None]
    measured = records.measurement
    is_second_order, by_direct = records.decision.second_order is not None, records.mixture.strategy == "direct"
    cells = _cells(records)
    return RemixReport(
        experiment=experiment,
        round=budget.round,
        checkpoint=checkpoint,
        model=model,
        parameters=parameters,
        curvature=_curvature(measured.curvature),
        tokens_per_domain=sum(measured.domain_tokens.values()) / len(measured.domain_tokens),
        chunk_tokens=budget.chunk_tokens,
        seed=seed,
        version=version,
        domains=domains,
        tasks=_task_rows(records, _held_by(binding, "pareto"), cells["deciding"] or cells["effects"]),
        **cells,
        **_reasons(records, optimize),
        without_path=without_path if records.exports else (),
        rank_stability=measured.rank_stability.mean,
        notes=tuple(map(_of_current_mixture, _notes(records))),
        constraints=(_repetition(optimize, budget), *_constraints(optimize, binding)),
        unconstrained_differs=any(move > _MOVED for move in moved) if moved else None,
        exports=tuple(
            ExportRow(
                one["trainer"], tuple(f"exports/{file}" for file in one["files"]), one["switch"], tuple(one["notes"])
            )
            for one in records.exports
        ),
        cost=Cost(
            tokens=measured.cost.tokens,
            flops=measured.cost.flops,
            chunk_flops=float(_FLOPS_PER_PARAMETER_AND_TOKEN) * parameters * budget.chunk_tokens,
        ),
        strategy=_SECOND_ORDER if by_direct and is_second_order else _STRATEGIES[records.mixture.strategy],
        remaining_tokens=budget.remaining_tokens,
        gain_unit=records.gains.unit,
        is_second_order=is_second_order,
        guardrail_notes=tuple(map(_of_current_mixture, records.decision.guardrail_notes or ())),
    )


def _notes(records: RoundRecords) -> Iterator[str]:
    """Yield what decision, budget, gains and measurement have to say of themselves."""
    yield from (*records.decision.notes, *records.budget.notes)
    yield _about_gains(records.gains.unit, records.measurement.calibration, records.decision)
    if records.current.strategy != "prior":
        yield _IN_BALANCE


def _about_gains(unit: GainUnit, calibration: float | None, decision: DecisionRecord) -> str:
    second_order = decision.second_order
    if unit == "nats" and second_order is not None and second_order.scale is not None:
        return (
            f"Gains are in nats per token as {second_order.branches} branches of the checkpoint have measured them "
            "(optimize.branches), by one factor for all tasks."
        )
    if unit == "nats":
        return (
            f"Gains are scaled by one factor for all tasks, influence.calibration = {calibration:g}: go by their "
            "signs, their order and their errors rather than by their size."
        )
    if second_order is not None:
        return (
            "Gains are shares of the best possible: 1 is what a task would gain under the best mixture for it alone. "
            "How large that is was not measured (optimize.branches)."
        )
    return (
        "Gains are shares of the best possible: 1 is what a task would gain, to first order, if all of the coming "
        "chunk went to the domain that helps it most. How large that is was not measured (influence.calibration)."
    )


def _domain_rows(records: RoundRecords, optimize: DirectParameters, held: Mapping[str, str]) -> tuple[DomainRow, ...]:
    decided, budget, unconstrained = records.mixture, records.budget, records.decision.unconstrained
    free = unconstrained.weights if unconstrained is not None else {}
    final = _final_epochs(decided, budget)
    return tuple(
        DomainRow(
            name=domain,
            current=records.current.weights[domain],
            recommended=decided.weights[domain],
            unconstrained=free.get(domain),
            available_tokens=budget.available[domain],
            consumed_tokens=budget.consumed.get(domain, 0),
            chunk_tokens=decided.tokens[domain],
            epochs=decided.epochs[domain],
            max_epochs=optimize.max_epochs,
            held_by=held.get(domain, ""),
            size_source=_SOURCES.get(source := budget.size_source.get(domain, "counted"), source),
            final_epochs=final.get(domain),
        )
        for domain in budget.domains
    )


def _final_epochs(decided: MixtureRecord, budget: TokenBudget) -> dict[str, float]:
    """Return how often each domain would be read by the end of the run; nothing where nobody says when that is."""
    if budget.remaining_tokens is None:
        return {}
    return {
        domain: (supply.consumed + decided.weights[domain] * budget.remaining_tokens) / supply.available
        for domain, supply in budget.supplies().items()
    }


def _cells(records: RoundRecords) -> dict[str, Any]:
    """Return influence as it was measured, the same as effects, and the effects that decided."""
    return {
        "cells": tuple(Cell(r["task"], r["domain"], r["influence"], r["stderr"]) for r in records.influence),
        "effects": tuple(Cell(r["task"], r["domain"], r["share"], r["share_stderr"]) for r in records.influence),
        "deciding": tuple(
            Cell(r["task"], r["domain"], r["effect"], r["stderr"]) for r in effect_rows(records.decision)
        ),
    }


def _task_rows(records: RoundRecords, held: Mapping[str, str], effects: Sequence[Cell]) -> tuple[TaskRow, ...]:
    rows = []
    for task, gain in records.gains.tasks.items():
        by_effect = sorted((cell for cell in effects if cell.task == task), key=lambda cell: -cell.influence)
        ranked = [cell.domain for cell in by_effect]
        # none is named at both ends
        named = min(_NAMED, max(1, len(ranked) // 2))
        rows.append(
            TaskRow(
                name=task,
                gain=gain.gain,
                stderr=gain.stderr,
                unconstrained_gain=gain.unconstrained_gain,
                best_domains=tuple(ranked[:named]),
                worst_domains=tuple(ranked[: -named - 1 : -1]),
                rank_stability=records.measurement.rank_stability.tasks[task],
                tokens=records.measurement.task_tokens[task],
                held_by=held.get(task, ""),
            )
        )
    return tuple(rows)


def _curvature(about: CurvatureReport) -> str:
    if about.inverse == "none":
        return str(about.curvature)
    return f"{about.curvature}, {about.inverse} by {about.damping:g} ({about.damping_unit})"


def _reasons(records: RoundRecords, optimize: DirectParameters) -> dict[str, Any]:
    """Return what was decided on, and what becomes of domains that nearly vanish."""
    decision, before, after = records.decision, records.current.weights, records.mixture.weights
    strength = 1.0 if decision.second_order is None else _text_strength(decision.second_order, optimize)
    anchor = "n-gram models of the domains" if optimize.is_drawn_to_ngrams else ""
    return {
        "decided_on": decided_on(decision, records.rounds, anchor=anchor),
        "falling": tuple(falling(decision, before, after, strength=strength, min_weight=optimize.min_weight)),
    }


def _text_strength(told: SecondOrderRecord, optimize: DirectParameters) -> float:
    """Return φ of held-out text: as the guardrail on all of it has it, or the rule where there is none."""
    measured = [one.strength for one in told.guardrails if one.name == EVERYTHING]
    return float(measured[0]) if measured else optimize.text_strength


def _held_by(binding: Sequence[BindingRecord], *kinds: str) -> dict[str, str]:
    """Return the constraint of such a kind that holds each domain, or each task, in words."""
    return {holder(one): _of_current_mixture(in_words(one)) for one in told_constraints(binding) if one.kind in kinds}


def _of_current_mixture(text: str) -> str:
    """Return what a decision says with the name of what it was compared with: not mixture 0, as in the loop."""
    return re.sub(r"\b([Tt]he) prior\b(?!')", r"\1 current mixture", text)


def _repetition(optimize: DirectParameters, budget: TokenBudget) -> str:
    most = f"No domain is read more than {optimize.max_epochs:g} times by the end of the"
    if budget.remaining_tokens is None:
        return f"{most} chunk (optimize.max_epochs)."
    return (
        f"{most} run, were the mixture kept for the {budget.remaining_tokens:,} tokens that remain "
        "(optimize.max_epochs, remix.remaining_tokens)."
    )


def _constraints(optimize: DirectParameters, binding: Sequence[BindingRecord]) -> Iterator[str]:
    """Yield every other constraint in words; those on groups say whether they bind, others in the row they hold."""
    if optimize.pareto:
        yield "No task may do worse than if the current mixture were kept (optimize.pareto)."
    if optimize.max_change is not None:
        yield f"No weight moves by more than {optimize.max_change:g} (optimize.max_change)."
    if optimize.min_weight > 0 or optimize.max_weight < 1:
        yield (
            f"Every weight is from {optimize.min_weight:g} to {optimize.max_weight:g} (optimize.min_weight, "
            "optimize.max_weight)."
        )
    for domain, limits in optimize.bounds.items():
        yield f"'{domain}' is from {limits.min:g} to {limits.max:g} (optimize.bounds.{domain})."
    for domain, weight in optimize.pinned.items():
        value = "its current weight" if weight == "current" else f"{weight:g}"
        yield f"'{domain}' is kept at {value} (optimize.pinned.{domain})."
    if optimize.method == "response":
        yield from _guardrails(optimize, binding)
    if optimize.is_drawn_to_ngrams:
        yield "The mixture is drawn towards that of n-gram models of the domains (optimize.anchor, optimize.entropy)."
    bound = {one.name: in_words(one) for one in binding if one.kind in ("group_lower", "group_upper")}
    for name, group in optimize.groups.items():
        binds = f"; it binds: {bound[name]}" if name in bound else ""
        yield (
            f"The group '{name}' ({quoted(group.domains)}) together is from {group.min:g} to {group.max:g} "
            f"(optimize.groups.{name}){binds}."
        )


def _guardrails(optimize: DirectParameters, binding: Sequence[BindingRecord]) -> Iterator[str]:
    bound = [one for one in binding if one.kind == "guardrail"]
    for name, guardrail in optimize.guardrails.items():
        if guardrail is None:
            continue
        text = _GUARDED.get(name, f"'{name}'")
        whose = "" if guardrail.domains is None else f" ({quoted(guardrail.domains)})"
        held = [holder(one) for one in bound if one.parameter == f"optimize.guardrails.{name}"]
        binds = f"; it binds: {', '.join(held)}" if held else ""
        yield (
            f"{text}{whose} may get worse by at most {tolerance_in_words(guardrail.tolerance, guardrail.unit)} "
            f"(optimize.guardrails.{name}){binds}."
        )
