"""`optimize`, `reweight` and `tikmix`: how influence becomes a mixture, and the loop around it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from tikmix_pipeline.parameters.base import Names, ParameterGroup

Weight = Annotated[float, Field(ge=0, le=1)]

Strategy = Literal["direct", "surrogate", "prior", "uniform", "proportional", "unimax", "ngram", "doremi", "regmix"]
BASELINES: frozenset[Strategy] = frozenset({"uniform", "proportional", "unimax", "ngram", "doremi", "regmix"})
"""Strategies that decide once, from the corpus and proxies of their own, whatever the checkpoint."""


_TASKS_OF_PAPER = 9

OF_BOUNDS = {"min_weight", "max_weight", "bounds", "max_epochs", "max_change"}
"""Parameters of `optimize` that bound the weights."""


class DomainBounds(ParameterGroup):
    """Bounds on one domain's weight."""

    min: Weight = 0.0
    max: Weight = 1.0


class OptimizeParameters(ParameterGroup):
    """TiKMiX-D: minimise `α·std(P̂) − β·ΣP̂ − γ·H(w)` within bounds."""

    uniformity: NonNegativeFloat = 1.0
    """α, the weight of the spread of the tasks' normalised gains."""
    gain: NonNegativeFloat | Literal["auto"] = "auto"
    """β, the weight of the tasks' total normalised gain; the paper has 1, and nine tasks. `auto` is 9 / T: as much of
    their mean, so that a mixture is as sharp as the paper's whatever the number of tasks."""
    entropy: NonNegativeFloat = 1.0
    """γ, the weight of the mixture's entropy."""
    anchor: Literal["uniform", "current"] = "uniform"
    """The mixture that the entropy is relative to, as in `−KL(w ‖ anchor)`: `uniform` is the paper's, up to a constant;
    `current`, the mixture in force, makes a decision a step from where training is."""
    pareto: bool = True
    """Require every task to gain at least as much as under the prior: `S w ≥ S w_prior`."""
    min_weight: Weight = 0.0
    max_weight: Weight = 1.0
    bounds: dict[str, DomainBounds] = Field(default_factory=dict)
    """Per domain, tighter than `min_weight` and `max_weight`."""
    max_epochs: PositiveFloat = 4.0
    """No domain may be read more often than this by the end of the coming chunk, past rounds included."""
    max_change: Annotated[float, Field(gt=0, le=1)] | None = None
    """How far a domain's weight may move from the mixture in force; null: any distance."""

    def gain_of(self, tasks: int) -> float:
        """Return β for so many tasks."""
        return _TASKS_OF_PAPER / max(tasks, 1) if self.gain == "auto" else self.gain


class ReweightParameters(ParameterGroup):
    """How a decided mixture is recorded."""

    decimals: Annotated[int, Field(ge=3, le=12)] = 6
    """Weights are rounded to this many decimals by largest remainder; they sum to 1 exactly."""
    exports: Names = Field(default_factory=list)
    """Trainers that the mixtures are written for: names in `tikmix_pipeline.export.registry.TRAINERS`."""
    paths: dict[str, str] = Field(default_factory=dict)
    """Of each domain's data, as these trainers know it; a domain without one goes by its name."""
    batch_tokens: PositiveInt | None = None
    """Tokens of a global batch of theirs, a whole number of sequences; null: that of `train`."""
    context: PositiveInt | None = None
    """Tokens of a sequence of theirs; null: `train.context`."""


class TikmixParameters(ParameterGroup):
    """The loop of rounds."""

    rounds: PositiveInt = 3
    strategy: Strategy = "direct"
    """`direct` is TiKMiX-D, `surrogate` TiKMiX-M; `prior` keeps the prior mixture. The others are baselines, decided
    after the first round and kept: see `baselines`."""
    decisions: PositiveInt | None = None
    """How many rounds decide; from then on the last mixture is kept. null: every round."""
    memory: Literal["precision", "mean", "none"] = "precision"
    """`precision` decides on the mean of the task-normalised influence over the rounds so far, weighed by its standard
    errors (unweighed for TiKMiX-M's sampled candidates); `mean` has it unweighed for all; `none` decides on the last
    measurement."""
    prior: Literal["proportional", "uniform"] | dict[str, Weight] = "proportional"
    """Mixture 0: by the domains' token counts, equal, or given weights."""

    @property
    def deciding_rounds(self) -> int:
        """How many rounds decide."""
        most = 1 if self.strategy in BASELINES else self.rounds
        return min(self.rounds, self.decisions or most, most)
