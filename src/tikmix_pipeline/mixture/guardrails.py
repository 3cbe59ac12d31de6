"""Guardrails: text that may not get worse than under the prior by more than a tolerance.

A guardrail g is about the held-out text of one domain, of several, or of all, whose mean gain is `D_g·w − r/2 wᵀQw` to
second order, or about a task. It asks

    gain_g(w) + ρ · mean_t gain_t(w) ≥ −slack,

with ρ, its tolerance, where that is a share of what the tasks gain, and else slack, the tolerance in the units of S.
Both sides are concave, so the guarded mixtures are a convex set, and the prior is one of them.

Axes: C guardrails, T tasks, K domains.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tikmix_pipeline.errors import TikmixError, nearest_name, require_known
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.records import SecondOrderRecord
from tikmix_pipeline.mixture.response_fit import MeasuredResponse
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.decision import Guardrail

EVERYTHING = "heldout"
"""The name of the guardrail on the held-out text of all domains."""


@dataclass(frozen=True, eq=False)
class GuardedText:
    """What one guardrail asks, in the units of S."""

    name: str
    guardrail: Guardrail
    row_K: FloatArray
    """The influence of the domains on its text."""
    share: float = 0.0
    """ρ."""
    slack: float = 0.0


def guarded_texts(
    guardrails: Mapping[str, Guardrail | None],
    *,
    domains: Sequence[str],
    tasks: Sequence[str],
    influence_TK: FloatArray,
    heldout_KK: FloatArray,
    measured: MeasuredResponse | None,
) -> Iterator[GuardedText]:
    """Yield what each guardrail that is set asks.

    Raises:
        TikmixError: a name is neither a domain nor a task, or a tolerance is in a unit that was not measured.
    """
    for name, guardrail in guardrails.items():
        if guardrail is None:
            continue
        row_K = _row(name, guardrail, domains, tasks, influence_TK, heldout_KK)
        if guardrail.unit == "share":
            yield GuardedText(name, guardrail, row_K, share=guardrail.tolerance)
        else:
            yield GuardedText(name, guardrail, row_K, slack=_slack(name, guardrail, domains, measured))


def _slack(name: str, guardrail: Guardrail, domains: Sequence[str], measured: MeasuredResponse | None) -> float:
    """Return a tolerance in the units of S."""
    if measured is None or not measured.fitted.is_told:
        raise TikmixError(
            f"optimize.guardrails.{name}.unit is {guardrail.unit}, but nothing says what a gain is in nats at this "
            "checkpoint. Let branches measure it (optimize.branches=6, or more of them where they do not tell), or "
            "give the tolerance as a share of what the tasks gain (unit: share)."
        )
    nats = guardrail.tolerance
    if guardrail.unit == "percent":
        members = guardrail.domains or (domains if name == EVERYTHING else [name])
        nats *= sum(measured.losses[member] for member in members) / len(members) / 100
    return nats / measured.fitted.scale


def in_sentences(second_order: SecondOrderRecord) -> Iterator[str]:
    """Say what each guarded text is expected to pay for what the tasks gain, and what it would without guardrails."""
    for guarded in second_order.guardrails:
        text = "held-out text" if guarded.name == EVERYTHING else f"'{guarded.name}'"
        now = _paid(guarded.gain, second_order.mean_gain)
        if second_order.unguarded_mean_gain <= 0:
            continue
        if guarded.gain == guarded.unguarded_gain:
            yield f"{text[0].upper()}{text[1:]} is expected to {now}; no guardrail stands in the way."
            continue
        without = _paid(guarded.unguarded_gain, second_order.unguarded_mean_gain)
        share = second_order.mean_gain / second_order.unguarded_mean_gain
        yield (
            f"{text[0].upper()}{text[1:]} is expected to {now}; without guardrails it would {without}, and the tasks "
            f"gain {share:.0%} of what they would gain then (optimize.guardrails)."
        )


def _paid(gain: float, of_tasks: float) -> str:
    if of_tasks <= 0:
        return "stay as it is"
    return f"{'gain' if gain >= 0 else 'lose'} {abs(gain) / of_tasks:.2f} of what the tasks gain"


def _row(
    name: str,
    guardrail: Guardrail,
    domains: Sequence[str],
    tasks: Sequence[str],
    influence_TK: FloatArray,
    heldout_KK: FloatArray,
) -> FloatArray:
    members = guardrail.domains or ((name,) if name in domains else None)
    if members is not None:
        require_known(f"optimize.guardrails.{name}.domains", "domain", members, domains)
        row_K: FloatArray = heldout_KK[[domains.index(member) for member in members]].mean(axis=0)
        return row_K
    if name in tasks:
        of_task_K: FloatArray = influence_TK[tasks.index(name)]
        return of_task_K
    if name == EVERYTHING:
        of_all_K: FloatArray = heldout_KK.mean(axis=0)
        return of_all_K
    raise TikmixError(
        f"optimize.guardrails names '{name}', which is neither a domain nor a task."
        f"{nearest_name(name, [*domains, *tasks])} Give it `domains`, call it '{EVERYTHING}' for all of them, or set "
        "it to null."
    )


def as_least_gains(
    texts: Sequence[GuardedText],
    mean_K: FloatArray,
    reference_K: FloatArray,
    *,
    saturation: float,
    curved_KK: FloatArray,
) -> LeastGains:
    """Return the guardrails as constraints; `mean_K` is the influence on the mean of the tasks."""
    share_C = np.array([text.share for text in texts])
    rows_CK = np.array([text.row_K for text in texts]).reshape(len(texts), len(mean_K)) + np.outer(share_C, mean_K)
    slack_C = np.array([text.slack for text in texts])
    return LeastGains(rows_CK, reference_K, slack_C, saturation * (1 + share_C), curved_KK)
