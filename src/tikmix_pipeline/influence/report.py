"""A measurement as tables, as an account of how it was made, and as what a change of mixture is expected to do.

To first order the loss of task t falls by `calibration · Σ_j (w'_j − w_j) S[t, j]` more over the coming chunk if that
is trained under w' instead of w. `influence.group` says when S is in nats.

Axes: T tasks, K domains, M parts of a task, L parts of a domain.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np

from tikmix_pipeline.influence.group import GroupInfluence
from tikmix_pipeline.influence.standard_error import Spread, mean_of_defined, rank_stability
from tikmix_pipeline.lm.cost import Cost, cost_report
from tikmix_pipeline.parameters import InfluenceParameters


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


def part_rows(found: GroupInfluence) -> dict[str, Any]:
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


def spread_record(found: GroupInfluence) -> dict[str, Any]:
    """Return what the standard error of any combination of domains follows from, as plain values for JSON.

    `standard_error.Spread.from_dict` reads it; `tasks` and `domains` name its axes.
    """
    spread = Spread.of(found.products_TMKL, found.task_tokens_TM, found.domain_tokens_KL)
    return {"tasks": list(found.tasks), "domains": list(found.domains), **spread.to_dict()}


def measurement_report(
    found: GroupInfluence,
    parameters: InfluenceParameters,
    *,
    horizon: float,
    stopping: Mapping[str, Any],
    cost: Mapping[str, Cost],
) -> dict[str, Any]:
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
    return {
        "curvature": dataclasses.asdict(found.curvature),
        "coverage": found.curvature.coverage(),
        **parameters.model_dump(mode="json", include={"inverse", "damping", "damping_unit", "calibration"}),
        "horizon": horizon,
        "lambda": {"least": min(lambdas), "largest": max(lambdas)},
        "rank_stability": {
            "mean": _defined(float(mean_of_defined(stability_T))),
            "tasks": {task: _defined(value) for task, value in _named(found.tasks, stability_T).items()},
        },
        "stopping": dict(stopping) or None,
        "task_loss": _named(found.tasks, found.task_loss_T),
        "domain_loss": _named(found.domains, found.domain_loss_K),
        "task_tokens": _named(found.tasks, found.task_tokens_TM.sum(axis=1)),
        "domain_tokens": _named(found.domains, found.domain_tokens_KL.sum(axis=1)),
        "cost": cost_report(**cost),
    }


def expected_gains(
    spread: Mapping[str, Any], before: Mapping[str, float], after: Mapping[str, float], *, calibration: float
) -> dict[str, tuple[float, float]]:
    """Return each task's expected gain and its standard error, in nats per loss-carrying token.

    The error is that of the sampled sequences; what the first order leaves out, and the error of the calibration, are
    not in it.

    Args:
        spread: of one measurement (`report.spread_record`).
        before: the mixture that gains are stated against.
        after: the mixture that is trained on instead.
        calibration: measured over predicted effect.
    """
    moved_1K = np.array([[after[domain] - before[domain] for domain in spread["domains"]]])
    gain_T1, error_T1 = Spread.from_dict(spread).combined(calibration * moved_1K)
    return dict(zip(spread["tasks"], zip(gain_T1[:, 0].tolist(), error_T1[:, 0].tolist(), strict=True), strict=True))


def _named(names: Sequence[str], values: Any) -> dict[str, Any]:
    return dict(zip(names, values.tolist(), strict=True))


def _defined(value: float) -> float | None:
    return None if isnan(value) else value
