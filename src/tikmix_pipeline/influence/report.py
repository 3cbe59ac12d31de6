"""A measurement as a table and as an account of how it was made.

Axes: T tasks, K domains, M parts of a task, L parts of a domain.
"""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
from pydantic import Field

from tikmix_pipeline.influence.curvature.build import CurvatureReport
from tikmix_pipeline.influence.group import GroupInfluence
from tikmix_pipeline.influence.stability import rank_stability
from tikmix_pipeline.influence.standard_error import Spread
from tikmix_pipeline.lm.cost import Cost, CostRecord, cost_report
from tikmix_pipeline.parameters.measurement import MatrixParameters
from tikmix_pipeline.record import Record
from tikmix_pipeline.statistics.correlations import mean_of_defined


def influence_rows(found: GroupInfluence) -> dict[str, Any]:
    """Return the columns of a table with one row per task and domain."""
    return {
        "task": np.repeat(found.tasks, len(found.domains)),
        "domain": np.tile(found.domains, len(found.tasks)),
        "influence": found.influence_TK.ravel(),
        "stderr": found.stderr_TK.ravel(),
        "effect": found.effect_TK.ravel(),
        "effect_stderr": found.effect_stderr_TK.ravel(),
    }


def chunk_rows(found: GroupInfluence) -> dict[str, Any]:
    """Return the columns of a table with one row per task, domain and part of the domain.

    `influence` is that of the part's own tokens: the mean over a domain's parts, by `tokens`, is the domain's.
    """
    task_share_TM = found.task_tokens_TM / found.task_tokens_TM.sum(axis=1, keepdims=True)
    influence_TKL = np.einsum("tmkl,tm->tkl", found.products_TMKL, task_share_TM)
    tasks, domains, parts = influence_TKL.shape
    return {
        "task": np.repeat(found.tasks, domains * parts),
        "domain": np.tile(np.repeat(found.domains, parts), tasks),
        "part": np.tile(np.arange(parts), tasks * domains),
        "tokens": np.tile(found.domain_tokens_KL.ravel(), tasks),
        "influence": influence_TKL.ravel(),
    }


class SpreadRecord(Record):
    """`spread.json`."""

    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    row_TMK: list[list[list[float]]]
    weight_TM: list[list[float]]
    domain_TK: list[list[float]]
    interaction_TK: list[list[float]]


class RankStability(Record):
    mean: float | None
    tasks: dict[str, float | None]


class Measurement(Record):
    """`measurement.json`."""

    curvature: CurvatureReport
    coverage: dict[str, float]
    inverse: str | None = None
    damping: float | None = None
    damping_unit: str | None = None
    calibration: float
    horizon: float
    lambdas: dict[str, float] = Field(validation_alias="lambda", serialization_alias="lambda")
    rank_stability: RankStability
    stopping: dict[str, Any] | None
    task_loss: dict[str, float]
    domain_loss: dict[str, float]
    task_tokens: dict[str, int]
    domain_tokens: dict[str, int]
    cost: CostRecord


def spread_record(found: GroupInfluence) -> SpreadRecord:
    """Return what the standard error of any combination of domains follows from, as plain values for JSON.

    `standard_error.Spread.from_dict` reads it; `tasks` and `domains` name its axes.
    """
    spread = Spread.of(found.products_TMKL, found.task_tokens_TM, found.domain_tokens_KL)
    return SpreadRecord(tasks=tuple(found.tasks), domains=tuple(found.domains), **spread.to_dict())


def measurement(
    found: GroupInfluence,
    parameters: MatrixParameters,
    *,
    horizon: float,
    stopping: Mapping[str, Any],
    cost: Mapping[str, Cost],
) -> Measurement:
    """Return what was measured on what, and how far it can be trusted, as plain values for JSON.

    Args:
        found: the measurement.
        parameters: how it was made.
        horizon: sum of the learning rates of the coming chunk.
        stopping: why `influence.tokens=auto` stopped, empty for a fixed amount.
        cost: of the parts of the work, by name.
    """
    stability_T = rank_stability(found.products_TMKL, found.task_tokens_TM, found.domain_tokens_KL)
    lambdas = [block.damping for block in found.curvature.blocks]
    own = parameters.recorded()
    return Measurement(
        curvature=found.curvature,
        coverage=found.curvature.coverage(),
        **{name: own[name] for name in ("inverse", "damping", "damping_unit", "calibration") if name in own},
        horizon=horizon,
        lambdas={"least": min(lambdas), "largest": max(lambdas)},
        rank_stability=RankStability(
            mean=_defined(float(mean_of_defined(stability_T, axis=0))),
            tasks={task: _defined(value) for task, value in _named(found.tasks, stability_T).items()},
        ),
        stopping=dict(stopping) or None,
        task_loss=_named(found.tasks, found.task_loss_T),
        domain_loss=_named(found.domains, found.domain_loss_K),
        task_tokens=_named(found.tasks, found.task_tokens_TM.sum(axis=1)),
        domain_tokens=_named(found.domains, found.domain_tokens_KL.sum(axis=1)),
        cost=cost_report(**cost),
    )


def _named(names: Sequence[str], values: Any) -> dict[str, Any]:
    return dict(zip(names, values.tolist(), strict=True))


def _defined(value: float) -> float | None:
    return None if isnan(value) else value
