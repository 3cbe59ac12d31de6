"""A measurement as tables, as the records that a run keeps of it, and as what a change of mixture is expected to do.

To first order the loss of task t falls by `calibration · Σ_j (w'_j − w_j) S[t, j]` more over the coming chunk if that
is trained under w' instead of w. `influence.group` says when S is in nats. Without a calibration the same gain is told
as a share of the best possible: divided by that of all of the chunk on the domain that helps the task most
(`mixture.influence_matrix`), so that 1 is the most that any mixture could gain.

Axes: T tasks, K domains, M gradient chunks of a task, L gradient chunks of a domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from tikmix_pipeline.influence.records import CurvatureReport, Stopping
from tikmix_pipeline.influence.standard_error import Spread, rank_stability
from tikmix_pipeline.lm.cost_records import Cost, CostRecord, cost_report
from tikmix_pipeline.mixture.influence_matrix import gain_scale
from tikmix_pipeline.parameters.measurement import DampingUnit, Inverse, MatrixParameters
from tikmix_pipeline.record import Record
from tikmix_pipeline.statistics import mean_of_defined

if TYPE_CHECKING:
    from tikmix_pipeline.influence.group import GroupInfluence


class SpreadRecord(Record):
    """`spread.json`: what the standard error of any combination of domains follows from (`standard_error.Spread`)."""

    tasks: list[str]
    """Names along T."""
    domains: list[str]
    """Names along K."""
    row_TMK: list[list[list[float]]]
    weight_TM: list[list[float]]
    domain_TK: list[list[float]]
    interaction_TK: list[list[float]]

    def components(self) -> Spread:
        """Return the same as arrays."""
        return Spread(*map(np.array, (self.row_TMK, self.weight_TM, self.domain_TK, self.interaction_TK)))


class LambdaRange(Record):
    """The λ of all blocks."""

    least: float
    largest: float


class RankStability(Record):
    """Spearman's correlation over domains between two halves of the measurement; None where nothing is ranked."""

    mean: float | None
    tasks: dict[str, float | None]


class Measurement(Record):
    """`measurement.json`: what was measured on what, and how far it can be trusted."""

    curvature: CurvatureReport
    coverage: dict[str, float]
    """Share of the trainable scalar parameters in each kind of block."""
    inverse: Inverse | None = None
    """As asked for, like the next three; the identity has none of the three."""
    damping: float | None = None
    damping_unit: DampingUnit | None = None
    calibration: float | None
    """Measured over predicted effect; None where nothing has measured it."""
    horizon: float
    """Sum of the learning rates of the coming chunk."""
    lambdas: LambdaRange = Field(validation_alias="lambda", serialization_alias="lambda")
    rank_stability: RankStability
    stopping: Stopping | None
    """Why `influence.tokens=auto` stopped."""
    task_loss: dict[str, float]
    """Nats per loss-carrying token at the checkpoint, or per item of multiple choice."""
    domain_loss: dict[str, float]
    task_tokens: dict[str, int]
    """Loss-carrying tokens that were measured, or items of multiple choice."""
    domain_tokens: dict[str, int]
    cost: CostRecord


def influence_rows(found: GroupInfluence, *, is_calibrated: bool) -> dict[str, Any]:
    """Return the columns of a table with one row per task and domain.

    `influence` and its `stderr` are in the units of S. `share` is what moving tokens to the domain does for the task,
    as a share of the best possible: 1 for the domain that helps it most, beyond what the reference mixture does.
    `effect` is the same in nats per token, or per item of multiple choice, for 1 % of the tokens, and NaN where no
    calibration tells the scale of S.
    The errors of both leave out that of the scale.
    """
    scale_T1 = gain_scale(found.effect_TK)[:, None]
    told = 1.0 if is_calibrated else nan
    return {
        "task": np.repeat(found.tasks, len(found.domains)),
        "domain": np.tile(found.domains, len(found.tasks)),
        "influence": found.influence_TK.ravel(),
        "stderr": found.stderr_TK.ravel(),
        "share": (found.effect_TK / scale_T1).ravel(),
        "share_stderr": (found.effect_stderr_TK / scale_T1).ravel(),
        "effect": told * found.effect_TK.ravel(),
        "effect_stderr": told * found.effect_stderr_TK.ravel(),
    }


def chunk_rows(found: GroupInfluence) -> dict[str, Any]:
    """Return the columns of a table with one row per task, domain and gradient chunk (`part`) of the domain.

    `influence` is that of the chunk's own tokens: the mean over a domain's chunks, by `tokens`, is the domain's.
    """
    task_share_TM = found.task_tokens_TM / found.task_tokens_TM.sum(axis=1, keepdims=True)
    influence_TKL = np.einsum("tmkl,tm->tkl", found.products_TMKL, task_share_TM)
    tasks, domains, chunks = influence_TKL.shape
    return {
        "task": np.repeat(found.tasks, domains * chunks),
        "domain": np.tile(np.repeat(found.domains, chunks), tasks),
        "part": np.tile(np.arange(chunks), tasks * domains),
        "tokens": np.tile(found.domain_tokens_KL.ravel(), tasks),
        "influence": influence_TKL.ravel(),
    }


def spread_record(found: GroupInfluence) -> SpreadRecord:
    """Return what the standard error of any combination of domains follows from."""
    spread = Spread.of(found.products_TMKL, found.task_tokens_TM, found.domain_tokens_KL)
    components = {name: values.tolist() for name, values in vars(spread).items()}
    return SpreadRecord(tasks=list(found.tasks), domains=list(found.domains), **components)


def measurement(
    found: GroupInfluence,
    influence: MatrixParameters,
    *,
    horizon: float,
    stopping: Mapping[str, Any],
    cost: Mapping[str, Cost],
) -> Measurement:
    """Return what was measured on what, and how far it can be trusted.

    Args:
        horizon: sum of the learning rates of the coming chunk.
        stopping: why `influence.tokens=auto` stopped (`GradientStore.notes`), empty for a fixed amount.
        cost: of the parts of the work, by name.
    """
    stability_T = rank_stability(found.products_TMKL, found.task_tokens_TM, found.domain_tokens_KL)
    lambdas = [block.damping for block in found.curvature.blocks]
    asked = influence.recorded()
    return Measurement.model_validate(
        {
            "curvature": found.curvature,
            "coverage": found.curvature.coverage(),
            **{name: asked[name] for name in ("inverse", "damping", "damping_unit", "calibration") if name in asked},
            "horizon": horizon,
            "lambda": LambdaRange(least=min(lambdas), largest=max(lambdas)),
            "rank_stability": RankStability(
                mean=_defined(float(mean_of_defined(stability_T, axis=0))),
                tasks={task: _defined(value) for task, value in _named(found.tasks, stability_T).items()},
            ),
            "stopping": dict(stopping) or None,
            "task_loss": _named(found.tasks, found.task_loss_T),
            "domain_loss": _named(found.domains, found.domain_loss_K),
            "task_tokens": _named(found.tasks, found.task_tokens_TM.sum(axis=1)),
            "domain_tokens": _named(found.domains, found.domain_tokens_KL.sum(axis=1)),
            "cost": cost_report(**cost),
        }
    )


def expected_gains(
    spread: SpreadRecord, before: Mapping[str, float], after: Mapping[str, float], *, calibration: float | None
) -> dict[str, tuple[float, float]]:
    """Return each task's expected gain and its standard error.

    They are in nats per loss-carrying token by the calibration; without one, shares of the best possible. The error is
    that of the sampled sequences; what the first order leaves out, and the error of the scale, are not in it. Gains are
    stated against the mixture `before`; `after` is trained on instead.
    """
    before_K, after_K = (np.array([weights[domain] for domain in spread.domains]) for weights in (before, after))
    components = spread.components()
    contrast_TK, _ = components.combined(np.eye(len(before_K)) - before_K)
    unit_T = gain_scale(contrast_TK) if calibration is None else np.full(len(spread.tasks), 1 / calibration)
    gain_T, error_T = (values_T1[:, 0] / unit_T for values_T1 in components.combined((after_K - before_K)[None]))
    return dict(zip(spread.tasks, zip(gain_T.tolist(), error_T.tolist(), strict=True), strict=True))


def gain_errors(spread: SpreadRecord, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the standard error of each task's gain from the sampled sequences, to first order, in the units of S."""
    moved_1K = np.array([[after[domain] - before[domain] for domain in spread.domains]])
    _, error_T1 = spread.components().combined(moved_1K)
    return dict(zip(spread.tasks, error_T1[:, 0].tolist(), strict=True))


def _named(names: Sequence[str], values: Any) -> dict[str, Any]:
    return dict(zip(names, values.tolist(), strict=True))


def _defined(value: float) -> float | None:
    return None if isnan(value) else value
