"""The what-if page of a decision of second order: one file of HTML that decides anew in the browser.

It needs no network, library or font, and asks the browser to allow none (Content-Security-Policy). What was measured
is in it as JSON; the solver is `templates/whatif_solver.js`, what it solves `templates/whatif_problem.js`, and what a
reader sees and moves `templates/whatif_controls.js` and `templates/whatif_results.js`.

Axes: T tasks, K domains.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tikmix_pipeline.influence.report import SpreadRecord
from tikmix_pipeline.mixture.recording import gain_units
from tikmix_pipeline.mixture.records import DecisionRecord, TokenBudget
from tikmix_pipeline.report.page import environment
from tikmix_pipeline.report.whatif_records import WhatIfProblem

_OF_SECOND_ORDER = (
    "This page is for decisions of second order by TiKMiX-D (optimize.method=response with tikmix.strategy=direct), "
    "and this round was decided otherwise."
)


def render_whatif(
    problem: WhatIfProblem | None,
    decision: DecisionRecord,
    spread: SpreadRecord,
    budget: TokenBudget,
    *,
    experiment: str,
    checkpoint: str,
    calibration: float | None,
) -> str:
    """Return the page; where there is nothing to decide anew it says why.

    The problem is None where TiKMiX-D of second order did not decide, and the checkpoint is as the user named it.
    """
    reason, data = _OF_SECOND_ORDER, None
    if problem is not None and decision.second_order is not None:
        reason = problem.nothing or ""
        content = _content(problem, decision, spread, budget, calibration)
        data = None if reason else embedded({**content, "experiment": experiment, "checkpoint": checkpoint})
    return (
        environment()
        .get_template("whatif.html")
        .render(
            experiment=experiment,
            checkpoint=checkpoint,
            round=budget.round,
            chunk_tokens=budget.chunk_tokens,
            reason=reason,
            branches=problem.branches.count if problem is not None and problem.branches is not None else None,
            data=data,
        )
    )


def embedded(content: Mapping[str, Any]) -> str:
    """Return JSON that may stand in a page: nothing in it ends a script, and what is no number is null."""
    text = json.dumps(_finite(content), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _content(
    problem: WhatIfProblem,
    decision: DecisionRecord,
    spread: SpreadRecord,
    budget: TokenBudget,
    calibration: float | None,
) -> dict[str, Any]:
    """Return what the script reads: gains are divided by `unit_T` to be in `unit`."""
    units, unit = gain_units(decision, calibration)
    return {
        "round": budget.round,
        "chunk_tokens": budget.chunk_tokens,
        "problem": problem.to_json(),
        "spread": _spread(spread, problem).to_json(),
        "decided_K": [decision.weights[domain] for domain in problem.domains],
        "unit": unit,
        "unit_T": [units[task] for task in problem.tasks],
        "nats_per_unit": calibration if problem.branches is None else problem.branches.scale,
        "available_K": [budget.available[domain] for domain in problem.domains],
        "consumed_K": [budget.consumed.get(domain, 0) for domain in problem.domains],
    }


def _spread(spread: SpreadRecord, problem: WhatIfProblem) -> SpreadRecord:
    """Return the spread in the order of the problem's tasks and domains."""
    tasks = [spread.tasks.index(task) for task in problem.tasks]
    domains = [spread.domains.index(domain) for domain in problem.domains]
    parts, of_both = spread.components(), np.ix_(tasks, domains)
    return SpreadRecord(
        tasks=problem.tasks,
        domains=problem.domains,
        row_TMK=parts.row_TMK[tasks][..., domains].tolist(),
        weight_TM=parts.weight_TM[tasks].tolist(),
        domain_TK=parts.domain_TK[of_both].tolist(),
        interaction_TK=parts.interaction_TK[of_both].tolist(),
    )
