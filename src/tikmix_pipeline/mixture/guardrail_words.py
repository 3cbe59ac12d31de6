"""What guarded text is expected to pay for what the tasks gain, in sentences: the first thing to say of a decision.

In per cent of its loss where branches have told what a gain is in nats, else in shares of what the tasks gain.
"""

from collections.abc import Iterator

from tikmix_pipeline.mixture.guardrails import EVERYTHING
from tikmix_pipeline.mixture.records import GuardrailRecord, SecondOrderRecord

_SHOWN = 3
"""Most guarded texts that have a sentence of their own."""


def guardrail_sentences(record: SecondOrderRecord, objective: float | None = None) -> Iterator[str]:
    """Say what each guarded text pays, what it would pay without guardrails, and what these cost.

    Held-out text as a whole goes first, then what binds, the dearest first; the others are counted. Nothing is said
    where the tasks have nothing to gain. The `objective` is that of the decided mixture; None where it is another
    method's, whose price for guardrails is not known.
    """
    if record.unguarded_mean_gain <= 0 or not record.guardrails:
        return
    told = sorted(record.guardrails, key=lambda one: (one.name != EVERYTHING, -one.price))
    shown = [one for one in told if one.name == EVERYTHING or one.price > 0][:_SHOWN] or told[:1]
    is_held = any(one.gain != one.unguarded_gain for one in record.guardrails)
    yield from (_sentence(one, record, is_held=is_held) for one in shown)
    if len(told) > len(shown):
        others = len(told) - len(shown)
        yield f"{others} more {'guardrails hold' if others > 1 else 'guardrail holds'} (optimize.guardrails)."
    if is_held and objective is not None:
        share = record.mean_gain / record.unguarded_mean_gain
        yield (
            f"With the guardrails the tasks gain {share:.0%} of what they would gain without, and the objective is "
            f"{objective:.4g} instead of {record.unguarded_objective:.4g}, lower being better (optimize.guardrails)."
        )


def _sentence(guarded: GuardrailRecord, record: SecondOrderRecord, *, is_held: bool) -> str:
    text = "Held-out text" if guarded.name == EVERYTHING else f"'{guarded.name}'"
    now = _paid(guarded, guarded.gain, record.mean_gain, record.scale)
    if not is_held:
        return f"{text} is expected to {now}; no guardrail stands in the way."
    without = _paid(guarded, guarded.unguarded_gain, record.unguarded_mean_gain, record.scale)
    return f"{text} is expected to {now}; without guardrails it would {without}."


def _paid(guarded: GuardrailRecord, gain: float, of_tasks: float, scale: float | None) -> str:
    verb = "gain" if gain >= 0 else "lose"
    if scale is not None and guarded.loss is not None:
        nats = abs(gain) * scale
        share = 100 * nats / guarded.loss
        return f"{verb} {f'{share:.1f}' if share >= 1 else f'{share:.2g}'} % ({nats:.2g} nats per token)"
    if of_tasks <= 0:
        return "stay as it is"
    return f"{verb} {abs(gain) / of_tasks:.2f} of what the tasks gain"
