"""Mixture 0: what the first chunk is trained on, before anything is measured."""

from collections.abc import Mapping
from typing import Literal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.simplex import check_mixture


def prior_mixture(
    prior: Literal["proportional", "uniform"] | Mapping[str, float],
    tokens: Mapping[str, float],
    source: str = "tikmix.prior",
) -> dict[str, float]:
    """Return the weight of each domain in mixture 0.

    `proportional` is `w_j = N_j / Σ_k N_k`, the natural mixture; `uniform` is `w_j = 1/K`.

    Args:
        prior: a rule, or the weights themselves.
        tokens: training tokens N_j of each domain; its keys are the domains.
        source: the parameter `prior` comes from, for messages.

    Raises:
        TikmixError: the given weights are no mixture of these domains, or there is not a single token.
    """
    if prior == "uniform":
        return dict.fromkeys(tokens, 1 / len(tokens))
    if prior == "proportional":
        total = sum(tokens.values())
        if total == 0:
            raise TikmixError(f"{source} is proportional to the domains' tokens, but no domain has any.")
        return {domain: count / total for domain, count in tokens.items()}
    return dict(zip(tokens, check_mixture(prior, list(tokens), source).tolist(), strict=True))
