"""Whether a domain has the text that a mixture asks for, for trainers that cut a data set of its own for each stage.

    asked_j  = T w_j
    may_j    = (max_epochs_j − consumed_j / N_j) N_j
    ratio_j  = max(1, what is left of the epochs), rounded up;        asked_j <= N_j ratio_j

Without a limit on a domain's epochs, the ratio is what the stage needs.
"""

import math
from decimal import Decimal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.schedule import Domain, Schedule
from tikmix_pipeline.export.weights import Shares

_SLACK = 1e-6
"""By how much, relatively, a weight at its limit may exceed it: the noise of rounding."""
_DECIMALS = 6


def repetition_ratios(schedule: Schedule, shares: Shares, trainer: str) -> dict[str, Decimal | None]:
    """Return how often each domain's text may be repeated within the chunk, at least 1; None where its size is unknown.

    Raises:
        TikmixError: a domain has less text than the chunk asks for.
    """
    return {
        name: _ratio(schedule.domain(name), float(share) * schedule.chunk_tokens, trainer)
        for name, share in shares.items()
    }


def capacity_notes(schedule: Schedule, ratios: dict[str, Decimal | None]) -> tuple[str, ...]:
    """Return notes on what could not be checked, and on domains that are repeated without a limit being set."""
    unknown = [name for name, ratio in ratios.items() if ratio is None]
    repeated = [
        f"{name} {ratio}"
        for name, ratio in ratios.items()
        if ratio is not None and ratio > 1 and schedule.domain(name).max_epochs is None
    ]
    notes = []
    if unknown:
        notes.append(f"Not checked for enough text, since their size is not known: {', '.join(unknown)}.")
    if repeated:
        notes.append(f"Repeated within the chunk, as no limit on epochs is set: {', '.join(repeated)} times.")
    return tuple(notes)


def _ratio(domain: Domain, asked: float, trainer: str) -> Decimal | None:
    if domain.available_tokens is None:
        return None
    needed = asked / domain.available_tokens
    if domain.max_epochs is None:
        return _rounded_up(needed)
    left = max(0.0, domain.max_epochs - domain.consumed_tokens / domain.available_tokens)
    if needed > left * (1 + _SLACK):
        raise TikmixError(
            f"{trainer} cannot fill the share of the domain '{domain.name}': the chunk asks for {asked:.0f} tokens "
            f"of it and max_epochs = {domain.max_epochs:g} leaves {left * domain.available_tokens:.0f} of its "
            f"{domain.available_tokens:.0f}. Lower its weight, shorten the chunk, or raise max_epochs."
        )
    return _rounded_up(max(left, needed))


def _rounded_up(ratio: float) -> Decimal:
    units = 10**_DECIMALS
    return Decimal(math.ceil(max(1.0, ratio) * units)) / Decimal(units)
