"""What each task asks for: the mixture that would be decided if it alone counted.

It is the decision itself with one row of the influence that it rests on and the other rows left out: the same rounds,
domains, bounds, entropy, anchor, guardrails and branches. Where the mixtures of two tasks differ, the decided one is a
compromise between them; where they are all the same corner, so is the decided one, whatever the weights of the tasks.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.mixture.direct import problem_of
from tikmix_pipeline.mixture.objective import Targets
from tikmix_pipeline.mixture.records import AskedMixtures, MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.response_branches import BranchLosses
from tikmix_pipeline.mixture.simplex import by_name
from tikmix_pipeline.parameters.decision import AveragingParameters, DirectParameters

if TYPE_CHECKING:
    import pandas as pd


def asked_mixtures(
    budget: TokenBudget,
    prior: MixtureRecord,
    optimize: DirectParameters,
    averaging: AveragingParameters,
    influences: Sequence["pd.DataFrame"],
    products: Sequence["pd.DataFrame"] = (),
    branches: BranchLosses | None = None,
    ngram: Mapping[str, float] | None = None,
) -> AskedMixtures:
    """Return what each task that counts in the decision would get alone; the arguments are those of `decide_direct`.

    Raises:
        TikmixError: as `decide_direct`.
    """
    problem = problem_of(budget, prior, optimize, averaging, influences, products, branches, ngram)
    counts_T = np.ptp(problem.influence_TK, axis=1) > 0
    shares_T = Targets.of(problem.tasks, counts_T, optimize).task_shares()
    asked = {}
    for t, task in enumerate(problem.tasks):
        if shares_T[t] > 0:
            alone = _alone(optimize, [other for other in problem.tasks if other != task], budget.domains)
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
