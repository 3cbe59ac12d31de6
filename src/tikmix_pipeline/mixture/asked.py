"""What each task asks for: the mixture that would be decided if it alone counted.

It is the decision itself with one row of the influence that it rests on and the other rows left out: the same rounds,
domains, bounds, entropy, anchor, guardrails and branches. Where the mixtures of two tasks differ, the decided one is a
compromise between them; where they are all the same corner, so is the decided one, whatever the weights of the tasks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tikmix_pipeline.mixture.direct import Problem
from tikmix_pipeline.mixture.objective import Targets
from tikmix_pipeline.mixture.records import AskedMixtures
from tikmix_pipeline.mixture.simplex import by_name
from tikmix_pipeline.parameters.decision import DirectParameters


def asked_mixtures(problem: Problem, optimize: DirectParameters) -> AskedMixtures:
    """Return what each task that counts in a decision by these parameters would get alone.

    Raises:
        TikmixError: as `solve_direct` or `response_problem`.
    """
    counts_T = np.ptp(problem.influence_TK, axis=1) > 0
    shares_T = Targets.of(problem.tasks, counts_T, optimize).task_shares()
    asked = {}
    for t, task in enumerate(problem.tasks):
        if shares_T[t] > 0:
            alone = _alone(optimize, [other for other in problem.tasks if other != task], problem.domains)
            decision = problem.solve(slice(t, t + 1), alone)
            asked[task] = by_name(decision.domains, decision.weights_K)
    return AskedMixtures(tasks=asked)


def _alone(optimize: DirectParameters, others: Sequence[str], domains: Sequence[str]) -> DirectParameters:
    """Return what would be decided by if the other tasks were not there."""
    alone: dict[str, Any] = {"task_weights": {}, "task_groups": {}}
    if optimize.method == "response":
        alone["guardrails"] = {
            name: guardrail
            for name, guardrail in optimize.guardrails.items()
            if name not in others or name in domains or (guardrail is not None and guardrail.domains is not None)
        }
    return optimize.model_copy(update=alone)
