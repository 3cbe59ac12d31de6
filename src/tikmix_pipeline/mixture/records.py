"""What is recorded of decisions and mixtures: the JSON documents of this room, each as a frozen type.

Numbers by domain or by task stand under their names. An attribute named otherwise than its key on disk says so by its
alias.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tikmix_pipeline.mixture.bounds import Bounds, Reason, mixture_bounds, within_reach
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.simplex import Box
from tikmix_pipeline.parameters.decision import BoundsParameters, StepBoundsParameters
from tikmix_pipeline.parameters.guardrails import GuardrailUnit
from tikmix_pipeline.record import Record

Number = int | float
"""Kept as it is: a whole number is written as one, and a float to its last bit."""

ByDomain = Mapping[str, Number]
ByTask = Mapping[str, Number]


class TokenBudget(Record):
    """What a run stands at between two chunks (`stock.json`). Amounts are training tokens."""

    round: int
    """The round that ended; -1 before the first."""
    available: ByDomain
    """Tokens of each domain; its keys are the domains."""
    consumed: ByDomain
    """Tokens of each that were trained on so far, repetitions counted; of domains that are gone, too."""
    chunk_tokens: int
    """Of the coming chunk."""
    remaining_tokens: int | None = None
    """Of all that is still to be trained, the coming chunk included; None, and not written, where nobody says."""
    current: ByDomain = Field(validation_alias="in_force", serialization_alias="in_force")
    """The mixture that was last trained under."""
    size_source: Mapping[str, str] = {}
    """How the tokens of a domain are known, where that is not by counting them: `given` or `estimated`."""
    notes: tuple[str, ...] = ()
    """What a reader should know, in sentences."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields that have a value, defaults included."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def tokens_ahead(self) -> int:
        """How many tokens to come a mixture has to have text for: all that are known of."""
        return self.chunk_tokens if self.remaining_tokens is None else self.remaining_tokens

    @property
    def domains(self) -> list[str]:
        """Names of the domains."""
        return list(self.available)

    def supplies(self) -> dict[str, Supply]:
        """Return what there is of each domain and what was read of it."""
        return {domain: Supply(tokens, self.consumed.get(domain, 0)) for domain, tokens in self.available.items()}

    def bounds(self, parameters: BoundsParameters) -> Bounds:
        """Return the bounds on each domain's share of the tokens to come, wherever the current mixture lies.

        Raises:
            TikmixError: no mixture satisfies them.
        """
        return mixture_bounds(parameters, self.supplies(), self.tokens_ahead, self.current)

    def step_bounds(self, parameters: StepBoundsParameters) -> Bounds:
        """Return the bounds with `optimize.max_change` among them, for what rests on local measurements.

        Raises:
            TikmixError: no mixture satisfies them.
        """
        bounds = self.bounds(parameters)
        return bounds if parameters.max_change is None else within_reach(bounds, self.current, parameters.max_change)


BindingKind = Literal["lower", "upper", "group_lower", "group_upper", "pareto", "guardrail"]
"""A bound on a domain's weight, one on the sum of a group's weights, a task's Pareto constraint, or a guardrail."""


class BindingRecord(Record):
    """A constraint that a decided mixture leans on."""

    name: str
    """The domain, the group of domains, or the task for `pareto`."""
    kind: BindingKind
    reason: Reason
    """Where a bound comes from; `prior` for `pareto` and `guardrail`."""
    parameter: str
    """The parameter to change to move it; empty for the simplex."""
    bound: Number
    """The bound on the weight or the sum, the least normalised gain of the task, or a guardrail's tolerance."""
    unit: str | None = None
    """Of a guardrail's tolerance. Chunks are trained under records of mixtures, and depend on no list of units."""
    multiplier: Number = Field(validation_alias="price", serialization_alias="price")
    """How fast the objective would fall if the constraint were loosened. Where others hold the mixture in the same
    place, as where tasks that conflict leave no other, it falls by less, or not at all."""


class Unconstrained(Record):
    """The best mixture if nothing but the simplex held it."""

    weights: ByDomain
    expected_gain: ByTask
    """In the units of S."""
    objective: Number


class GuardrailRecord(Record):
    """What a guardrail asks, and what it held: `gain + share · mean gain ≥ −slack`, over the reference."""

    name: str
    """Of the guardrail, or of the domain where it is one of `each_domain`."""
    tolerance: Number
    unit: GuardrailUnit
    influence: ByDomain
    """Of the domains on its text."""
    share: Number
    """How much of the mean gain of the tasks its text may lose."""
    slack: Number
    """How much it may lose besides, in the units of S."""
    strength: Number
    """How many times as many nats a unit of its gain is as of a task's."""
    gain: Number
    """Of its text under the decided mixture, over the prior, in the units of S; a cost is negative."""
    unguarded_gain: Number
    """The same under the best mixture without any guardrail."""
    price: Number
    """How fast the objective would fall per unit of tolerance; 0 where the guardrail does not bind."""
    loss: Number | None = None
    """Of its text at the checkpoint, in nats per token, where branches say what gains are in nats."""
    logarithm: ByDomain | None = None
    """What own shares count by their logarithms (`own_share`); None where gains are to second order."""


class ExpectedGain(Record):
    """What a mixture is expected to gain on the mean of the tasks, over the prior, by branches of the checkpoint."""

    nats: Number
    half_width: Number
    """Of the interval that a branch under it lies in with the probability `level`."""
    level: Number


class SecondOrderRecord(Record):
    """What a decision by second order knows besides."""

    saturation: Number
    heldout_gain: ByDomain
    """Of the held-out text of each domain, over the prior, in the units of S."""
    gain_over_current: ByTask
    """Over the current mixture, in the units of S; like the next, and like all gains here, of second order."""
    unconstrained_gain_over_current: ByTask
    mean_influence: ByDomain
    """Of the domains on the mean of the tasks, by their weights, over what the prior does."""
    mean_gain: Number
    """Of the tasks, by their weights, in the units of S."""
    unguarded_mean_gain: Number
    unguarded_objective: Number
    """The objective of the best mixture without any guardrail."""
    guardrails: tuple[GuardrailRecord, ...]

    branches: int | None = None
    """How many branches said what the saturation is, and the scale; like what follows, None without any."""
    scale: Number | None = None
    """Nats per unit of S."""
    expected: ExpectedGain | None = None


class DecisionCost(Record):
    """What a baseline took to decide."""

    tokens: Number
    flops: Number


class DecisionRecord(Record):
    """A decided mixture, whoever decided (`decision.json`, `baseline.json`, `sweep/decision.json`).

    Of a baseline, and of the best of the mixtures that were trained on, only the first six fields and what they took
    are known; `Decision` and `SurrogateDecision` say what the other fields mean.
    """

    strategy: str
    round: int
    """The round that trains under the mixture."""
    weights: ByDomain
    expected_gain: ByTask
    """Over the prior, in the units of S; where `response` is `lookahead`, in nats per token as the branches of that
    checkpoint were measured; where it is `table`, in the unit of the table."""
    binding: tuple[BindingRecord, ...]
    notes: tuple[str, ...]

    prior: ByDomain | None = None
    reference: ByDomain | None = None
    gain_scale: ByTask | None = None
    """What the expected gains, in the units of S, are shares of when they are told: the best possible."""
    normalised_gain: ByTask | None = None
    objective: Number | None = None
    terms: Mapping[str, Number] | None = None

    normaliser: ByTask | None = None
    optimality_gap: Number | None = None
    unconstrained: Unconstrained | None = None
    anchor: ByDomain | None = None
    second_order: SecondOrderRecord | None = None
    """Where `optimize.method` is `response`."""
    guardrail_notes: tuple[str, ...] | None = None
    """What guarded text is expected to pay for what the tasks gain, in sentences: the first thing to say of a decision
    that has guardrails."""

    effect: Mapping[str, ByDomain] | None = None
    """By task: what moving tokens to each domain does, over the current mixture, by all that TiKMiX-D decided on: the
    mean over rounds, and to second order where gains are. In the units of S; positive where more of it helps."""
    effect_stderr: Mapping[str, ByDomain] | None = None
    """Their standard errors, from those of S."""

    response: str | None = None
    """`sweep.response`, of TiKMiX-M alone."""
    direct_weights: ByDomain | None = None
    direct_objective: Number | None = None
    searched_weights: ByDomain | None = None
    searched_objective: Number | None = None
    additive_gain: ByTask | None = None
    kept: Literal["surrogate", "direct"] | None = None

    cost: DecisionCost | None = None
    """What a baseline took."""
    details: Mapping[str, Any] | None = None
    """What else a baseline has to say, as plain values."""


class AskedMixtures(Record):
    """The mixture that each task would get if it alone decided (`asked.json`)."""

    tasks: Mapping[str, ByDomain]


class MixtureRecord(Record):
    """A mixture that a round trains under (`mixture.json`), or the current one of an external run (`in_force.json`)."""

    round: int
    strategy: str
    chunk_tokens: int
    weights: ByDomain
    """Per token; of a decided mixture rounded, and summing to 1."""
    tokens: Mapping[str, int]
    """Of each domain in the chunk."""
    epochs: ByDomain
    """How often each domain will have been read when the round ends."""

    expected_gain: ByTask | None = None
    """Like the next, as in the decision."""
    gain_scale: ByTask | None = None
    binding: tuple[BindingRecord, ...] | None = None
    direct_weights: ByDomain | None = None
    kept: Literal["surrogate", "direct"] | None = None


class BoxRecord(Record):
    """The smallest and the largest weight of each domain."""

    low: ByDomain
    high: ByDomain


class SweepDesign(Record):
    """How the candidates of a sweep were drawn (`sweep/design.json`)."""

    box: BoxRecord
    acceptance: Number
    """The share of draws that lay in the box."""
    notes: tuple[str, ...]

    def arrays(self, domains: Sequence[str]) -> Box:
        """Return the box as the arrays `low_K` and `high_K` over these domains."""
        low_K, high_K = (
            np.array([side[domain] for domain in domains], dtype=np.float64) for side in (self.box.low, self.box.high)
        )
        return low_K, high_K


GainUnit = Literal["share", "nats"]
"""Of gains over the current mixture: shares of the best possible (`mixture.influence_matrix`), or nats per
loss-carrying token of the task, where `influence.calibration` says what branches of the checkpoint have measured."""


class TaskGain(Record):
    """What a task is expected to gain over the current mixture, and what it would if nothing constrained the mixture,
    all in one unit."""

    gain: Number
    stderr: Number
    unit: GainUnit = "nats"
    """Records that do not say it are from when all gains were told in nats, measured or not."""
    unconstrained_gain: Number | None = None


class Gains(Record):
    """What each task is expected to gain (`gains.json`); on disk the tasks are the keys."""

    tasks: Mapping[str, TaskGain]

    @property
    def unit(self) -> GainUnit:
        """The unit of all of them; without any it makes no difference."""
        return next((gain.unit for gain in self.tasks.values()), "share")

    def to_json(self) -> dict[str, Any]:
        """Return the gains by task."""
        tasks: dict[str, Any] = super().to_json()["tasks"]
        return tasks

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Gains":
        """Read what `to_json` gave."""
        return super().from_json({"tasks": content})
