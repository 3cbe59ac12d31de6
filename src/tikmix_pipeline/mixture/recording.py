"""A mixture as it is recorded: rounded weights, and what they mean in tokens and epochs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tikmix_pipeline.mixture.simplex import check_mixture, round_to_simplex
from tikmix_pipeline.mixture.stock import Stock


def record_mixture(
    weights: Mapping[str, float],
    *,
    round_number: int,
    strategy: str,
    decimals: int,
    stock: Stock,
) -> dict[str, Any]:
    """Return the JSON-able record of the mixture that round `round_number` trains under.

    Args:
        weights: per token, by domain.
        stock: before the round's chunk.

    Returns:
        `weights` rounded to `decimals` and summing to 1, `tokens` of each domain in the chunk, and `epochs`: how often
        each domain will have been read when the round ends.

    Raises:
        TikmixError: the weights are no mixture of these domains.
    """
    domains, chunk_tokens = stock.domains, stock.chunk_tokens
    weights_K = check_mixture(weights, domains, f"the mixture of round {round_number}")
    rounded = dict(zip(domains, round_to_simplex(weights_K, decimals).tolist(), strict=True))
    tokens = {domain: int(np.rint(weight * chunk_tokens)) for domain, weight in rounded.items()}
    return {
        "round": round_number,
        "strategy": strategy,
        "chunk_tokens": chunk_tokens,
        "weights": rounded,
        "tokens": tokens,
        "epochs": {
            domain: (supply.consumed + tokens[domain]) / supply.available for domain, supply in stock.supplies().items()
        },
    }
