"""From what a round has recorded to what its report says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tikmix_pipeline.mixture.decision import Binding
from tikmix_pipeline.mixture.stock import Stock
from tikmix_pipeline.parameters.decision import OptimizeParameters
from tikmix_pipeline.report.constraints import constraint_lines, held_by, of_run_elsewhere
from tikmix_pipeline.report.content import Cell, Cost, DomainRow, ExportRow, RemixReport, TaskRow

_NAMED = 3
"""Most domains that a task's row names at either end."""
_MOVED = 5e-4
"""Weight from which on the unconstrained mixture counts as another."""
_FLOPS_PER_PARAMETER_AND_TOKEN = 6
"""Of training: two forward, four backward (Kaplan et al. 2020, section 2.1)."""
_SOURCES = {"estimated": "estimated from a sample"}
_STRATEGIES = {"direct": "TiKMiX-D, direct optimisation", "surrogate": "TiKMiX-M, a regression over sampled mixtures"}


@dataclass(frozen=True)
class Model:
    """What was measured.

    Attributes:
        checkpoint: as the user named it.
        name: of its architecture.
        parameters: how many it has.
    """

    checkpoint: str
    name: str
    parameters: int


@dataclass(frozen=True)
class Records:
    """What a round has recorded, as its artifacts hold it.

    Attributes:
        stock: `stock.json`.
        in_force: the record of the mixture in force.
        mixture: the record of the mixture that was decided.
        decision: the one that counts: TiKMiX-D's, or TiKMiX-M's.
        gains: `gains.json`.
        measurement: `measurement.json`.
        influence: rows of `influence.parquet`.
        exports: `exports.json`.
    """

    stock: Mapping[str, Any]
    in_force: Mapping[str, Any]
    mixture: Mapping[str, Any]
    decision: Mapping[str, Any]
    gains: Mapping[str, Any]
    measurement: Mapping[str, Any]
    influence: Sequence[Mapping[str, Any]]
    exports: Sequence[Mapping[str, Any]]


def gather_report(
    records: Records, model: Model, optimize: OptimizeParameters, *, experiment: str, seed: int, version: str
) -> RemixReport:
    """Return the report of a round.

    Args:
        records: of the round.
        model: that was measured.
        optimize: the constraints.
        experiment: its name.
        seed: of the run.
        version: of this package.
    """
    stock = Stock.from_dict(records.stock)
    binding = [Binding(**one) for one in records.decision["binding"]]
    domains = _domain_rows(records, stock, optimize, held_by(binding, tasks=False))
    measured = records.measurement
    return RemixReport(
        experiment=experiment,
        round=stock.round,
        checkpoint=model.checkpoint,
        model=model.name,
        parameters=model.parameters,
        curvature=_curvature(measured),
        tokens_per_domain=sum(measured["domain_tokens"].values()) / len(measured["domain_tokens"]),
        chunk_tokens=stock.chunk_tokens,
        seed=seed,
        version=version,
        domains=domains,
        tasks=_task_rows(records, held_by(binding, tasks=True)),
        cells=tuple(Cell(r["task"], r["domain"], r["influence"], r["stderr"]) for r in records.influence),
        rank_stability=measured["rank_stability"]["mean"],
        notes=tuple(map(of_run_elsewhere, (*records.decision["notes"], *stock.notes, *_caveats(records)))),
        constraints=constraint_lines(optimize, binding),
        unconstrained_differs=_differs(domains),
        exports=tuple(map(_export_row, records.exports)),
        cost=Cost(
            tokens=measured["cost"]["tokens"],
            flops=measured["cost"]["flops"],
            chunk_flops=float(_FLOPS_PER_PARAMETER_AND_TOKEN) * model.parameters * stock.chunk_tokens,
        ),
        strategy=_STRATEGIES[records.mixture["strategy"]],
    )


def _domain_rows(
    records: Records, stock: Stock, optimize: OptimizeParameters, held: Mapping[str, str]
) -> tuple[DomainRow, ...]:
    decided, free = records.mixture, records.decision.get("unconstrained", {}).get("weights", {})
    return tuple(
        DomainRow(
            name=domain,
            current=records.in_force["weights"][domain],
            recommended=decided["weights"][domain],
            unconstrained=free.get(domain),
            available_tokens=stock.available[domain],
            consumed_tokens=stock.consumed.get(domain, 0),
            chunk_tokens=decided["tokens"][domain],
            epochs=decided["epochs"][domain],
            max_epochs=optimize.max_epochs,
            held_by=held.get(domain, ""),
            size_source=_SOURCES.get(source := stock.size_source.get(domain, "counted"), source),
        )
        for domain in stock.domains
    )


def _task_rows(records: Records, held: Mapping[str, str]) -> tuple[TaskRow, ...]:
    stability = records.measurement["rank_stability"]["tasks"]
    return tuple(
        TaskRow(
            name=task,
            gain=gain["gain"],
            stderr=gain["stderr"],
            unconstrained_gain=gain.get("unconstrained_gain"),
            best_domains=tuple(ranked[: _named(ranked)]),
            worst_domains=tuple(ranked[: -_named(ranked) - 1 : -1]),
            rank_stability=stability[task],
            tokens=records.measurement["task_tokens"][task],
            held_by=held.get(task, ""),
        )
        for task, gain in records.gains.items()
        for ranked in [_ranked(records.influence, task)]
    )


def _export_row(one: Mapping[str, Any]) -> ExportRow:
    files = tuple(f"exports/{file}" for file in one["files"])
    return ExportRow(one["trainer"], files, one["switch"], tuple(one["notes"]))


def _differs(domains: Sequence[DomainRow]) -> bool | None:
    moved = [abs(row.unconstrained - row.recommended) for row in domains if row.unconstrained is not None]
    return any(move > _MOVED for move in moved) if moved else None


def _named(ranked: Sequence[str]) -> int:
    """Return how many domains to name at either end, so that none is at both."""
    return min(_NAMED, max(1, len(ranked) // 2))


def _ranked(influence: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    rows = [row for row in influence if row["task"] == task]
    return [row["domain"] for row in sorted(rows, key=lambda row: -row["influence"])]


def _curvature(measured: Mapping[str, Any]) -> str:
    about = measured["curvature"]
    if about["inverse"] == "none":
        return str(about["curvature"])
    return f"{about['curvature']}, {about['inverse']} by {about['damping']:g} ({about['damping_unit']})"


def _caveats(records: Records) -> tuple[str, ...]:
    calibration = records.measurement["calibration"]
    in_balance = (
        "The checkpoint was measured as it is. It is in balance with the mixture it was last trained under, so a "
        "domain that was read a lot of late seems to help less than more of it would."
    )
    return (
        f"Gains are scaled by one factor for all tasks, influence.calibration = {calibration:g}: go by their signs, "
        "their order and their errors rather than by their size.",
        *([] if records.in_force["strategy"] == "prior" else [in_balance]),
    )
