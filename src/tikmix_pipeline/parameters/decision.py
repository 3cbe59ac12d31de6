"""`optimize`, `reweight` and `tikmix`: how influence becomes a mixture, and the loop around it."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tikmix_pipeline.parameters.base import UNRECORDED, Names, ParameterGroup, only_if
from tikmix_pipeline.parameters.guardrails import IN_NATS, Guardrail
from tikmix_pipeline.parameters.training import ScheduleParameters

Weight = Annotated[float, Field(ge=0, le=1)]

Strategy = Literal[
    "direct",
    "surrogate",
    "prior",
    "uniform",
    "proportional",
    "unimax",
    "ngram",
    "doremi",
    "regmix",
    "mixmin",
    "dga",
    "fastmix",
]
BASELINES: frozenset[Strategy] = frozenset(
    {"uniform", "proportional", "unimax", "ngram", "doremi", "regmix", "mixmin", "dga", "fastmix"}
)
"""Strategies that decide once, after the first round, and measure no influence."""

_TASKS_OF_PAPER = 9
_PULL_OF_NGRAMS = 3.0
"""Of 0, 1 and 3 the best on the surfaces of docs/results.md."""
_STRENGTH_TO_SECOND_ORDER = 1.75
"""Nats per unit of gain of held-out text over those of the tasks, to second order, with seven domains."""


class DomainBounds(ParameterGroup):
    """Bounds on one domain's weight."""

    min: Weight = 0.0
    """Smallest weight."""
    max: Weight = 1.0
    """Largest weight."""


class DomainGroup(DomainBounds):
    """Bounds on the sum of the weights of several domains; groups may overlap."""

    domains: Annotated[tuple[str, ...], Field(min_length=1)]
    """Those whose weights are added up."""


class RepetitionParameters(ParameterGroup):
    """How often text may be read."""

    max_epochs: PositiveFloat = 4.0
    """No domain may be read more often than this by the end of the coming chunk, past rounds included; where the end of
    the run is known (`tikmix.planned_rounds`, `remix.remaining_tokens`), by then, were the chunk's mixture kept."""


class WeightBoundsParameters(ParameterGroup):
    """Bounds on the weights, however much text there is."""

    min_weight: Weight = 0.0
    """Smallest weight of any domain."""
    max_weight: Weight = 1.0
    """Largest weight of any domain."""
    bounds: dict[str, DomainBounds] = Field(default_factory=dict)
    """Per domain, tighter than `min_weight` and `max_weight`."""
    groups: dict[str, DomainGroup] = Field(default_factory=dict)
    """Bounds on what several domains have together."""
    pinned: dict[str, Weight | Literal["current"]] = Field(default_factory=dict)
    """Domains whose weight is decided already: a number, or `current`, that of the current mixture (of the prior where
    there is none). All other bounds hold for them too."""


class BoundsParameters(RepetitionParameters, WeightBoundsParameters):
    """Bounds on the weights, wherever the current mixture lies."""


class StepBoundsParameters(BoundsParameters):
    """Bounds on the weights, with how far they may move from the current mixture."""

    max_change: Annotated[float, Field(gt=0, le=1)] | None = None
    """How far a domain's weight may move from the current mixture; null: any distance. Where a pin, a group or another
    bound asks for more, that goes first."""


class TargetWeightParameters(ParameterGroup):
    """What the objective counts: tasks or groups of them, and how much each of these counts."""

    task_groups: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Tasks that count as one target, the mean of their normalised gains weighed by `task_weights`; a task is in one
    group at most. The Pareto constraint stays one per task."""
    task_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """How much a task, or a group under its name, counts; 1 where nothing is given. A target of weight 0 is no part of
    the objective, as if it were not there, and only the Pareto constraint looks at it."""

    @model_validator(mode="after")
    def _require_one_group_a_task(self) -> Self:
        group_of: dict[str, str] = {}
        for group, tasks in self.task_groups.items():
            for task in tasks:
                if task in group_of:
                    raise ValueError(
                        f"task_groups: the task '{task}' is listed in '{group_of[task]}' and in '{group}'; a task "
                        "counts once"
                    )
                group_of[task] = group
        return self


class ObjectiveParameters(TargetWeightParameters):
    """What is minimised: `α·std(P̂) − β·ΣP̂ − γ·H(w)` over the targets, or `−α·softmin(P̂)` in the place of the first."""

    fairness: Literal["std", "softmin"] = "std"
    """How the targets that gain least are looked after: `std` is the paper's spread of the normalised gains; `softmin`
    a smooth least of them, which is maximised (GRAPE's minimax, `mixture.fairness`)."""
    temperature: Annotated[PositiveFloat, only_if("fairness", "softmin")] = 0.1
    """τ of the soft minimum, in normalised gain: towards 0 it is the least gain, and for large τ the mean."""
    uniformity: NonNegativeFloat | Literal["auto"] = "auto"
    """α, the weight of the spread of the tasks' normalised gains, or of their soft minimum. `auto` is the paper's 1,
    and 0 where TiKMiX-D has gains of second order; of a soft minimum 9, as much as `gain: auto` gives to the mean."""
    gain: NonNegativeFloat | Literal["auto"] = "auto"
    """β, the weight of the tasks' total normalised gain; the paper has 1, and nine tasks. `auto` is 9 over the number
    of targets (tasks, or groups of them): as much of their mean, so that a mixture is as sharp as the paper's whatever
    that number is."""
    entropy: NonNegativeFloat | Literal["auto"] = "auto"
    """γ, the weight of the mixture's entropy. `auto` is the paper's 1; where TiKMiX-D has gains of second order, whose
    own curvature spreads the mixture, it is 3 if the entropy is relative to the mixture of n-gram models, else 0."""

    @property
    def spread_weight(self) -> float:
        """Return α."""
        if self.uniformity != "auto":
            return self.uniformity
        return 1.0 if self.fairness == "std" else float(_TASKS_OF_PAPER)

    @property
    def entropy_weight(self) -> float:
        """Return γ."""
        return 1.0 if self.entropy == "auto" else self.entropy

    def gain_of(self, targets: int) -> float:
        """Return β for so many targets."""
        return _TASKS_OF_PAPER / max(targets, 1) if self.gain == "auto" else self.gain


class SearchObjectiveParameters(ObjectiveParameters, WeightBoundsParameters):
    """What a surrogate is searched for, within bounds that the candidates' own come on top of."""

    pareto: bool = True
    """Require every task to gain at least as much as under the prior: `S w ≥ S w_prior`."""


def _default_guardrails() -> dict[str, Guardrail | None]:
    return {"heldout": Guardrail(tolerance=1.0)}


class ResponseParameters(ParameterGroup):
    """How gains of second order are told and held."""

    method: Literal["response", "paper"] = "response"
    """`response` maximises gains of second order under guardrails; `paper` is TiKMiX-D to the letter."""
    saturation: Annotated[NonNegativeFloat, only_if("method", "response")] = 0.85
    """r, by how much a mixture's own step leaves less to gain (`mixture.second_order`). The default is the best of the
    default corpus with seed 0; see docs/results.md for others."""
    normaliser: Annotated[Literal["common", "best"], only_if("method", "response")] = "common"
    """What the tasks' gains are divided by before they are added up: `common`, one number for all, so that what counts
    is their mean in nats; or `best`, each by the most that any mixture could gain on it, so that a task that has little
    to gain asks for as much as one that has much, and tasks whose losses are of different kinds can be added."""
    heldout_response: Annotated[Literal["second_order", "logarithm"], only_if("method", "response")] = "logarithm"
    """How held-out text of a domain answers to the domain's own share of a chunk (`mixture.own_share`): by the
    logarithm of that share, or to second order, as tasks answer to all domains. By the first a guardrail is kept as
    nearly with many domains as with few (docs/results.md)."""
    heldout_strength: Annotated[PositiveFloat | Literal["auto"], only_if("method", "response")] = "auto"
    """φ, how many times as many nats a unit of gain is for held-out text of the domains as for the tasks
    (`mixture.guardrails`). `auto` is what branches have measured; without them 1 by the logarithm, and to second order
    1.75, from the default corpus with seed 0, as r is."""
    guardrails: Annotated[dict[str, Guardrail | None], only_if("method", "response")] = Field(
        default_factory=_default_guardrails
    )
    """By name: that of a domain, of a task, any other for a group of `domains`, `heldout` for all of them together, or
    `each_domain` for one guardrail a domain, where the domain has none of its own. One that is null is left out."""

    @property
    def text_strength(self) -> float:
        """Return φ where branches do not tell it."""
        if self.heldout_strength != "auto":
            return self.heldout_strength
        return _STRENGTH_TO_SECOND_ORDER if self.heldout_response == "second_order" else 1.0


class FirstOrderParameters(SearchObjectiveParameters, StepBoundsParameters):
    """What the paper's TiKMiX-D decides by, within bounds."""

    anchor: Literal["auto", "uniform", "current", "ngram"] = "auto"
    """The mixture that the entropy is relative to, as in `−KL(w ‖ anchor)`: `uniform` is the paper's, up to a constant;
    `current`, the current mixture, makes a decision a step from where training is; `ngram` is the one under which the
    tasks' text is most likely by n-gram models (`baselines.ngram`). `auto` is `ngram` for gains of second order, unless
    no task decides, and `uniform` else."""

    @property
    def entropy_anchor(self) -> Literal["uniform", "current", "ngram"]:
        """Return which mixture the entropy is relative to."""
        return "uniform" if self.anchor == "auto" else self.anchor


class DirectParameters(FirstOrderParameters, ResponseParameters):
    """What TiKMiX-D decides by, by either method."""

    @property
    def spread_weight(self) -> float:
        """Return α."""
        is_default = self.uniformity == "auto" and self.fairness == "std"
        return 0.0 if self.method == "response" and is_default else super().spread_weight

    @property
    def entropy_weight(self) -> float:
        """Return γ."""
        if self.method == "paper" or self.entropy != "auto":
            return super().entropy_weight
        return _PULL_OF_NGRAMS if self.entropy_anchor == "ngram" else 0.0

    @property
    def entropy_anchor(self) -> Literal["uniform", "current", "ngram"]:
        """Return which mixture the entropy is relative to."""
        return "ngram" if self.method == "response" and self.anchor == "auto" else super().entropy_anchor

    @property
    def is_drawn_to_ngrams(self) -> bool:
        """Tell whether the mixture of n-gram models has a say in the decision."""
        return self.entropy_anchor == "ngram" and self.entropy_weight > 0


class ResponseBranchParameters(ParameterGroup):
    """How branches are trained and scored that measure a checkpoint's response."""

    branch_tokens: Annotated[PositiveInt | None, only_if("method", "response")] = None
    """Training tokens of a branch, rounded up to whole steps; null: `train.chunk_tokens`. Gains in nats are those of so
    long a branch, whose learning rate falls to zero; a shorter one than a chunk reads as small a share of every
    domain's text, and so repeats as much."""
    branch_items: Annotated[PositiveInt | None, only_if("method", "response")] = 400
    """Query items per task that a branch is scored on; null: all."""
    branch_windows: Annotated[PositiveInt, only_if("method", "response")] = 32
    """Windows of every domain's held-out text that a branch is scored on, which says what that pays."""
    workers: Annotated[PositiveInt | Literal["auto"], UNRECORDED] = "auto"
    """Branches at a time, each in one thread: `auto` is one per core on a CPU, and one on a GPU."""

    def branch_steps(self, train: ScheduleParameters) -> int:
        """Return the optimiser steps of a branch."""
        return train.steps_of(self.branch_tokens)


class OptimizeParameters(DirectParameters, ResponseBranchParameters):
    """TiKMiX-D, and the branches that it may rest on."""

    branches: Annotated[NonNegativeInt, only_if("method", "response")] = 0
    """Branches of the checkpoint that measure r, and what gains are in nats; 0: r is `saturation`, and nothing says."""

    @field_validator("branches")
    @classmethod
    def _require_a_few(cls, branches: int) -> int:
        if 0 < branches < 3:
            raise ValueError("the reference, the decided mixture and one between them are three: give 3 or more, or 0")
        return branches

    @model_validator(mode="after")
    def _require_branches_for_nats(self) -> Self:
        guardrails = self.guardrails if self.method == "response" and not self.branches else {}
        for name, guardrail in guardrails.items():
            if guardrail is not None and guardrail.unit in IN_NATS:
                raise ValueError(
                    f"guardrails.{name}.unit is {guardrail.unit}, and nothing says what a gain is in nats without "
                    "branches: set optimize.branches=6, or the unit to share or stderr"
                )
        return self


class RoundingParameters(ParameterGroup):
    """How weights are rounded."""

    decimals: Annotated[int, Field(ge=3, le=12)] = 6
    """Weights are rounded to this many decimals by largest remainder; they sum to 1 exactly."""


class ExportParameters(ParameterGroup):
    """For whom mixtures are written, and what these trainers call things."""

    exports: Names = Field(default_factory=list)
    """Trainers that the mixtures are written for: names in `tikmix_pipeline.export.registry.TRAINERS`."""
    paths: dict[str, str] = Field(default_factory=dict)
    """Of each domain's data, as these trainers know it; a domain without one goes by its name."""
    batch_tokens: PositiveInt | None = None
    """Tokens of a global batch of theirs, a whole number of sequences; null: that of `train`."""
    context: PositiveInt | None = None
    """Tokens of a sequence of theirs; null: `train.context`."""


class ReweightParameters(RoundingParameters, ExportParameters):
    """How a decided mixture is recorded and handed over."""


class StrategyParameters(ParameterGroup):
    """Who decides."""

    strategy: Strategy = "direct"
    """`direct` is TiKMiX-D, `surrogate` TiKMiX-M; `prior` keeps the prior mixture. The others are baselines, decided
    after the first round and kept: see `baselines`."""


class AveragingParameters(ParameterGroup):
    """On which rounds a decision rests."""

    memory: Literal["precision", "mean", "none"] = "precision"
    """`precision` decides on the mean of the task-normalised influence over the rounds so far, weighed by its standard
    errors; `mean` has it unweighed; `none` decides on the last measurement."""


class PriorParameters(ParameterGroup):
    """What mixture 0 is."""

    prior: Literal["proportional", "uniform"] | dict[str, Weight] = "proportional"
    """Mixture 0: by the domains' token counts, equal, or given weights."""


class TablesStrategyParameters(AveragingParameters, PriorParameters):
    """What a decision over a user's tables depends on."""


class TikmixParameters(StrategyParameters, TablesStrategyParameters):
    """The loop of rounds."""

    rounds: PositiveInt = 3
    """Chunks to train, with a measurement and a decision after each."""
    planned_rounds: PositiveInt | None = None
    """Rounds that the run will have in the end, `rounds` or more. Every decision then keeps text for all of them: under
    its mixture no domain would be read beyond `optimize.max_epochs` by the end of the last. The learning rate decays in
    the last of them, so that rounds may be added up to there and none is made again. null: decisions look to the end of
    the coming chunk, and the last of `rounds` is the last."""
    decisions: PositiveInt | None = None
    """How many rounds decide; from then on the last mixture is kept. null: every round."""
    verdict: bool = True
    """Train the rounds after the first on the prior as well, and end by saying how much better or worse the run is.
    That takes as long as training these rounds and the final evaluation do, and changes nothing else."""

    @property
    def has_verdict(self) -> bool:
        """Whether there is something to compare with the prior, and it is asked for."""
        return self.verdict and self.rounds > 1 and self.strategy != "prior"

    @field_validator("planned_rounds")
    @classmethod
    def _require_all_rounds(cls, planned: int | None, others: ValidationInfo) -> int | None:
        rounds = others.data.get("rounds", 1)
        if planned is not None and planned < rounds:
            raise ValueError(f"tikmix.rounds is {rounds} already: give as many or more, or null")
        return planned

    @property
    def total_rounds(self) -> int:
        """How many rounds the run will have in the end, as far as is known."""
        return self.planned_rounds or self.rounds

    @property
    def deciding_rounds(self) -> int:
        """How many rounds decide."""
        most = 1 if self.strategy in BASELINES else self.rounds
        return min(self.rounds, self.decisions or most, most)
