"""What is logged as metrics of the tables and documents that nodes make."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.influence.agreement import MEAN_GAIN, MEAN_OF_TASKS

if TYPE_CHECKING:
    from tikmix_pipeline.influence.report import Measurement
    from tikmix_pipeline.lm.cost_records import BranchCostRecord, CostRecord
    from tikmix_pipeline.mixture.records import Gains, MixtureRecord

_NOT_IN_A_METRIC = re.compile(r"[^\w. -]")

Metrics = list[tuple[str, float, int]]
"""Key, value and step."""


def in_a_metric(name: str) -> str:
    """Return a name as a part of a metric's key, without what MLflow refuses there."""
    return _NOT_IN_A_METRIC.sub("", name.replace("/", "-")).replace(" ", "-")


def _of_training(table: Any, number: int) -> Metrics:
    del number
    rows = zip(table["step"].tolist(), table["loss"].tolist(), table["learning_rate"].tolist(), strict=True)
    return [entry for step, loss, rate in rows for entry in (("loss/train", loss, step), ("learning_rate", rate, step))]


def _of_evaluation(table: Any, number: int, prefix: str = "bpb") -> Metrics:
    main = {"task": "answer", "domain": "text"}
    rows = table[["name", "kind", "measure", "bits_per_byte"]].itertuples(index=False)
    metrics: Metrics = [
        (f"{prefix}/{name}" if measure == main[kind] else f"{prefix}_{measure}/{name}", value, number)
        for name, kind, measure, value in rows
    ]
    tasks = table[(table["kind"] == "task") & (table["measure"] == "answer")]["bits_per_byte"]
    return [*metrics, (f"{prefix}/mean_of_tasks", float(tasks.mean()), number)]


def _of_final(table: Any, number: int) -> Metrics:
    return _of_evaluation(table, number, prefix="final_bpb")


def _of_influence(table: Any, number: int) -> Metrics:
    rows: Iterable[Any] = table[["task", "domain", "influence", "effect"]].itertuples(index=False)
    return [
        entry
        for task, domain, influence, effect in rows
        for entry in (
            (f"influence/{task}/{domain}", influence, number),
            (f"effect/{task}/{domain}", effect, number),
        )
    ]


def _of_measurement(report: Measurement, number: int) -> Metrics:
    stability = report.rank_stability.tasks
    ranked = [(f"rank_stability/{task}", value, number) for task, value in stability.items() if value is not None]
    return [*ranked, *_of_cost(report.cost, "cost", number)]


def _of_gains(gains: Gains, number: int) -> Metrics:
    return [
        (f"expected_{name}/{task}", value, number)
        for task, gain in gains.tasks.items()
        for name, value in (("gain", gain.gain), ("stderr", gain.stderr))
    ]


def _of_sweep_cost(report: BranchCostRecord, number: int) -> Metrics:
    return _of_cost(report.cost, "cost/sweep", number)


def _of_cost(cost: CostRecord, prefix: str, number: int) -> Metrics:
    return [(f"{prefix}/tokens", cost.tokens, number), (f"{prefix}/flops", cost.flops, number)]


def _of_validation(table: Any, number: int) -> Metrics:
    figures = ["spearman", "pearson", "slope", "ceiling", "pearson_ceiling"]
    metrics: Metrics = []
    for task, prefix in ((MEAN_OF_TASKS, ""), (MEAN_GAIN, "mean_gain_")):
        for row in table[table["task"] == task].to_dict("records"):
            candidate = in_a_metric(row["curvature"])
            metrics += [(f"validate/{candidate}/{prefix}{name}", row[name], number) for name in figures]
    return [entry for entry in metrics if not math.isnan(entry[1])]


def _of_sweep_quality(table: Any, number: int) -> Metrics:
    """Log what is defined; the mean over the targets beside how many of them are not in it."""
    metrics: Metrics = []
    for surrogate, rows in table.groupby("surrogate", sort=False):
        name = f"sweep/{in_a_metric(surrogate)}"
        for row in rows.to_dict("records"):
            metrics += [(f"{name}/{in_a_metric(row['target'])}/{of}", row[of], number) for of in ("spearman", "r2")]
        metrics.append((f"{name}/mean_spearman", float(rows["spearman"].mean()), number))
        metrics.append((f"{name}/aggregate_spearman", float(rows["aggregate_spearman"].iloc[0]), number))
        metrics.append((f"{name}/undefined", int(rows["spearman"].isna().sum()), number))
    return [entry for entry in metrics if not math.isnan(entry[1])]


def _of_mixture(mixture: MixtureRecord, number: int) -> Metrics:
    return [(f"mixture/{domain}", weight, number) for domain, weight in mixture.weights.items()]


METRICS: Mapping[str, Callable[[Any, int], Metrics]] = {
    "train_log": _of_training,
    "evaluation": _of_evaluation,
    "final_evaluation": _of_final,
    "influence": _of_influence,
    "measurement": _of_measurement,
    "mixture": _of_mixture,
    "gains": _of_gains,
    "validation": _of_validation,
    "sweep_cost": _of_sweep_cost,
    "sweep_quality": _of_sweep_quality,
}
"""How a dataset of that kind, of a given round, becomes metrics."""
