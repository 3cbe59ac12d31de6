"""UniMax (Chung et al. 2023, arXiv 2304.09151, Algorithm 1): uniform, but no domain is read more than N times.

The domains share the budget of B tokens equally. Starting from the one with the least text left, each takes its share
or, if that is less, what may still be read of it; what it leaves is shared by the others:

    U_j = min(B_left / domains_left, max(0, N · available_j − consumed_j)),        w_j = U_j / Σ_k U_k

Where all text that may be read is less than B, this is a mixture proportional to it, as in the paper, and every domain
is read more often than N times by the same factor.
"""

from collections.abc import Mapping

from tikmix_pipeline.baselines.baseline import Baseline, within_bounds
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.mixture.simplex import prior_mixture
from tikmix_pipeline.parameters.baselines import UnimaxParameters
from tikmix_pipeline.parameters.decision import Strategy


def unimax(
    supplies: Mapping[str, Supply], *, tokens: int, parameters: UnimaxParameters, bounds: Bounds | None = None
) -> Baseline:
    """Return UniMax's mixture for the rest of a run, of B training tokens, moved inside the bounds.

    Raises:
        TikmixError: every domain was read `baselines.unimax.epochs` times already.
    """
    caps = {
        domain: max(0.0, parameters.epochs * supply.available - supply.consumed) for domain, supply in supplies.items()
    }
    total = sum(caps.values())
    if total == 0:
        raise TikmixError(
            f"Every domain was read baselines.unimax.epochs = {parameters.epochs:g} times already, so UniMax has "
            "nothing to share. Raise that parameter."
        )
    budgets = _shared(caps, tokens)
    spent = sum(budgets.values())
    weights, notes = within_bounds(bounds, {domain: budget / spent for domain, budget in budgets.items()})
    short = (
        f"Of the {tokens} tokens to come, baselines.unimax.epochs = {parameters.epochs:g} leaves text for {total:.0f}: "
        f"every domain will be read beyond that, {tokens / total:.3g} times as much as it allows."
    )
    capped = [domain for domain, budget in budgets.items() if budget == caps[domain]]
    return Baseline(weights, notes=(short, *notes) if total < tokens else notes, details={"capped": capped})


def by_rule(
    strategy: Strategy,
    budget: TokenBudget,
    bounds: Bounds,
    *,
    unimax_parameters: UnimaxParameters | None,
    tokens: int | None,
) -> Baseline:
    """Return the mixture of a strategy that looks at nothing but how many tokens there are, moved inside the bounds.

    That is `uniform`, `proportional` or `unimax`, which alone needs parameters and the tokens of the rest of the run.

    Raises:
        TikmixError: as `unimax`.
    """
    if strategy == "unimax" and unimax_parameters is not None and tokens is not None:
        return unimax(budget.supplies(), tokens=tokens, parameters=unimax_parameters, bounds=bounds)
    wanted = prior_mixture("uniform" if strategy == "uniform" else "proportional", budget.available)
    weights, notes = within_bounds(bounds, wanted)
    return Baseline(weights, notes=notes)


def _shared(caps: Mapping[str, float], budget: float) -> dict[str, float]:
    """Return what each domain takes of the budget."""
    taken = {}
    ascending = sorted(caps, key=lambda domain: caps[domain])
    for position, domain in enumerate(ascending):
        taken[domain] = min(budget / (len(ascending) - position), caps[domain])
        budget -= taken[domain]
    return {domain: taken[domain] for domain in caps}
