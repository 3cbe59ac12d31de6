"""What the what-if page is made of, and what it writes: records.

Axes: T tasks, K domains, M gradient chunks of a task.
"""

from collections.abc import Mapping
from typing import Literal

from tikmix_pipeline.influence.prediction_score import PredictedGain
from tikmix_pipeline.mixture.records import ExpectedGain, GainUnit
from tikmix_pipeline.parameters.guardrails import GuardrailUnit
from tikmix_pipeline.record import Record

Row = list[float]
Table = list[list[float]]


class WeightBounds(Record):
    """What a domain's weight may be, and the parameters that say so; empty where only the simplex does."""

    low: float
    high: float
    low_parameter: str = ""
    high_parameter: str = ""


class GroupBound(Record):
    """One side of what the weights of several domains may sum to."""

    name: str
    members: list[int]
    """Positions of the domains."""
    side: Literal["lower", "upper"]
    weight: float


class WhatIfGuardrail(Record):
    """What a guardrail asks, in a form that another tolerance can be put into: `mixture.guardrails` has the formula."""

    name: str
    parameter: str
    unit: GuardrailUnit
    tolerance: float
    row_K: Row
    """What a unit of each domain's weight does for its text, in the units of S."""
    log_K: Row
    """What own shares count by their logarithms, of which `row_K` is free then."""
    floor_K: Row
    """What is added to weights before their logarithm is taken."""
    bends: bool
    """Whether its gain is less by `saturation / 2 · wᵀQw`."""
    strength: float
    """φ."""
    per_unit: float
    """How much slack a unit of tolerance is; 0 where that is a share, and not used where it is standard errors."""
    stderr_K: Row | None
    """The standard errors of the row, where the unit is `stderr`."""


class WhatIfObjective(Record):
    """What is maximised: `mixture.objective` and `mixture.fairness` say how."""

    uniformity: float
    """α."""
    fairness: Literal["std", "softmin"]
    temperature: float | None
    """τ, where fairness is a soft minimum."""
    gain: float | None
    """β; None for nine over the number of targets."""
    entropy: float
    """γ."""
    anchor: Literal["uniform", "current", "ngram"]
    """Which mixture q is."""
    anchor_K: Row | None
    """q; None for the uniform mixture."""
    normaliser: Literal["common", "best"]
    pareto: bool
    task_weights: dict[str, float]
    task_groups: dict[str, list[str]]


class WhatIfBranches(Record):
    """What branches say of the mean gain of the tasks, in nats (`mixture.response_fit.FittedResponse`)."""

    count: int
    scale: float
    """c₁, nats per unit of S."""
    covariance: Table
    noise: float
    quantile: float
    """Of Student's distribution, for an interval of this level."""
    level: float


class WhatIfProblem(Record):
    """`problem.json`: what a decision of second order was made of (`mixture.response.ResponseProblem`).

    Everything that a page needs to decide anew under other weights, tolerances and bounds.
    """

    domains: list[str]
    tasks: list[str]
    contrast_TK: Table
    """What the domains do for a task beyond what the prior does, averaged over the rounds, in the units of S."""
    counts_T: list[bool]
    """Whether a task tells mixtures apart."""
    scale_T: Row
    """n, the best possible gain of each task over the prior."""
    curved_KK: Table
    """Q."""
    saturation: float
    """r."""
    prior_K: Row
    """The mixture that gains are over."""
    current_K: Row
    bounds: list[WeightBounds]
    groups: list[GroupBound]
    objective: WhatIfObjective
    guardrails: list[WhatIfGuardrail]
    branches: WhatIfBranches | None = None
    nothing: str | None = None
    """Why nothing was decided, in a sentence, if so."""


class WhatIfSettings(Record):
    """Where the controls of the page stand; weights and bounds are shares of tokens from 0 to 1."""

    task_weights: dict[str, float]
    """Of tasks, and of groups under their names, as in `optimize.task_weights`."""
    tolerances: dict[str, float]
    """Of each guardrail, in its own unit."""
    entropy: float
    """γ, as in `optimize.entropy`."""
    pareto: bool
    max_weight: float
    """Of any domain, as in `optimize.max_weight`."""
    bounds: dict[str, WeightBounds]
    groups: dict[str, float]
    """By `<group>.min` or `<group>.max`."""


class Prediction(Record):
    """A prediction that a reader of the what-if page recorded: `prediction-<experiment>-round-<r>.json`.

    It is about the coming chunk after round `round`, trained under `mixture` instead of under `current`.
    """

    VERSION = 1

    kind: Literal["tikmix-prediction"]
    version: Literal[1]
    experiment: str
    round: int
    """The round that was measured; the mixture is for the chunk after it."""
    checkpoint: str
    recorded: str
    """When, in UTC (ISO 8601)."""
    chunk_tokens: int
    settings: WhatIfSettings
    current: Mapping[str, float]
    decided: Mapping[str, float]
    mixture: Mapping[str, float]
    unit: GainUnit
    """Of the gains and their errors."""
    gains: dict[str, PredictedGain]
    mean: ExpectedGain | None
    """What the mean of the tasks is predicted to gain over the current mixture, by branches."""
    objective: float
    """Lower is better; that of the decision at the page's own starting position."""
