"""Why a mixture is what it is, in sentences: what was decided on, and what becomes of domains that nearly vanish."""

from collections.abc import Iterator

from tikmix_pipeline.mixture.records import ByDomain, DecisionRecord
from tikmix_pipeline.report.number_format import brief_share

_FALLEN = 0.1
"""Share of its weight below which a domain has fallen so far that it is named."""
_LEAST = 1e-3
"""Weight below which a domain was next to nothing before."""


def decided_on(decision: DecisionRecord, rounds: int, *, anchor: str = "") -> str:
    """Say what a decision rested on, and what pulls at it beside the tasks; nothing where it is not TiKMiX-D's.

    Args:
        decision: whatever decided.
        rounds: how many measurements it is the mean of.
        anchor: whose mixture the entropy is relative to, in words; empty where that is no mixture of its own.
    """
    if decision.effect is None:
        return ""
    basis = "this round's measurement alone" if rounds == 1 else f"the mean of the last {rounds} rounds"
    order = ""
    if decision.second_order is not None:
        order = ", to second order: what domains have in common counts once"
    pull = f" The mixture is drawn towards that of {anchor} besides." if anchor and decision.anchor is not None else ""
    return f"Decided on {basis}{order}.{pull}"


def falling(
    decision: DecisionRecord, before: ByDomain, after: ByDomain, *, strength: float, min_weight: float
) -> Iterator[str]:
    """Say which domains fall below a tenth of their weight, and what their own text is expected to pay for it.

    Args:
        decision: of second order, if what text pays is to be told.
        before: the current mixture.
        after: the decided one.
        strength: as many nats as a unit of the tasks' gain a unit of gain is for held-out text.
        min_weight: `optimize.min_weight`.
    """
    for domain, weight in before.items():
        if weight < _LEAST or after[domain] >= _FALLEN * weight:
            continue
        floor = "a floor for every domain" if min_weight == 0 else f"{min_weight:g} now, the floor for every domain"
        yield (
            f"{domain} falls from {brief_share(weight)} to {brief_share(after[domain])}: "
            f"{_paid(decision, domain, strength)}. optimize.min_weight is {floor}, optimize.bounds.{domain}.min one "
            "for it alone."
        )


def _paid(decision: DecisionRecord, domain: str, strength: float) -> str:
    """Say what the domain's own held-out text pays, in nats where they are known, else beside what the tasks gain."""
    told = decision.second_order
    if told is None:
        return "what its own text pays for it is not known"
    gain, text = told.heldout_gain[domain] * strength, "its own held-out text is expected"
    if gain >= 0:
        return f"{text} to lose nothing by it"
    if told.scale is not None:
        return f"{text} to lose {-gain * told.scale:.2g} nats per token"
    if told.mean_gain <= 0:
        return f"{text} to lose, and no task gains"
    return f"{text} to lose {-gain / told.mean_gain:.2f} times what the tasks gain on average"
