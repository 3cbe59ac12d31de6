"""The what-if page of a decision of second order: one file of HTML that decides anew in the browser.

It needs no network, library or font, and asks the browser to allow none (Content-Security-Policy). What was measured
is in it as JSON; the solver is `templates/whatif_solver.js`, what it solves `templates/whatif_problem.js`, and what a
reader sees and moves `templates/whatif_controls.js` and `templates/whatif_results.js`.

Axes: T tasks, K domains.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tikmix_pipeline.influence.report import SpreadRecord
from tikmix_pipeline.mixture.recording import gain_units
from tikmix_pipeline.mixture.records import DecisionRecord, TokenBudget
from tikmix_pipeline.report.page import environment, name_width
from tikmix_pipeline.report.whatif_records import WhatIfContent, WhatIfProblem

_OF_SECOND_ORDER = (
    "This page is for decisions of second order by TiKMiX-D (optimize.method=response with tikmix.strategy=direct), "
    "and this round was decided otherwise."
)


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """What a round has recorded that the page rests on."""

    experiment: str
    checkpoint: str
    """As the user named it."""
    budget: TokenBudget
    decision: DecisionRecord
    spread: SpreadRecord
    calibration: float | None
    problem: WhatIfProblem | None
    """None where TiKMiX-D of second order did not decide."""


def render_whatif(whatif: WhatIf) -> str:
    """Return the page; where there is nothing to decide anew it says why."""
    problem, reason = whatif.problem, None
    if problem is None or whatif.decision.second_order is None:
        reason = _OF_SECOND_ORDER
    elif problem.nothing is not None:
        reason = problem.nothing
    content = None if problem is None or reason is not None else _content(whatif, problem)
    return (
        environment()
        .get_template("whatif.html")
        .render(
            experiment=whatif.experiment,
            round=whatif.budget.round,
            checkpoint=whatif.checkpoint,
            chunk_tokens=whatif.budget.chunk_tokens,
            reason=reason,
            name_width=1 if problem is None else name_width([*problem.domains, *problem.tasks]),
            branches=None if problem is None or problem.branches is None else problem.branches.count,
            data=None if content is None else embedded(content.to_json()),
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


def _content(whatif: WhatIf, problem: WhatIfProblem) -> WhatIfContent:
    units, unit = gain_units(whatif.decision, whatif.calibration)
    second_order, budget = whatif.decision.second_order, whatif.budget
    scale = whatif.calibration if second_order is None or second_order.scale is None else float(second_order.scale)
    return WhatIfContent(
        experiment=whatif.experiment,
        round=budget.round,
        checkpoint=whatif.checkpoint,
        chunk_tokens=budget.chunk_tokens,
        problem=problem,
        spread=_spread(whatif.spread, problem),
        decided_K=[float(whatif.decision.weights[domain]) for domain in problem.domains],
        unit=unit,
        unit_T=[units[task] for task in problem.tasks],
        nats_per_unit=scale,
        available_K=[float(budget.available[domain]) for domain in problem.domains],
        consumed_K=[float(budget.consumed.get(domain, 0)) for domain in problem.domains],
    )


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
