"""`influence`: how Group Influence is measured."""

import logging
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup, only_if, split_names
from tikmix_pipeline.parameters.training import StreamParameters

_LOG = logging.getLogger(__name__)

Curvature = Literal["identity", "adam", "diagonal", "kfac", "ekfac"]
Inverse = Literal["damped", "horizon"]
DampingUnit = Literal["relative", "absolute", "horizon"]
KeptPrecision = Literal["float32", "bfloat16"]
Fisher = Annotated[Literal["true", "empirical"], BeforeValidator(lambda value: "true" if value is True else value)]
"""The command line makes a truth value of `influence.fisher=true`."""
TaskLoss = Literal["text", "answer", "choice"]
Group = Literal["linear", "embedding", "head", "elementwise"]
Groups = Annotated[list[Group], Field(min_length=1), BeforeValidator(split_names)]

DEFAULT = "default"
"""In `influence.task_loss`, all tasks that are not named."""

FITTED: tuple[Curvature, ...] = ("diagonal", "kfac", "ekfac")
"""Curvatures that are fitted on text before they are used."""

_ALL_GROUPS: tuple[Group, ...] = ("linear", "embedding", "head", "elementwise")


def heldout_target(domain: str) -> str:
    """Return the name of the target that is a domain's held-out text (`influence.targets`)."""
    return f"heldout-{domain}"


class TaskLossParameters(ParameterGroup):
    """What the loss of a task is."""

    task_loss: TaskLoss | dict[str, TaskLoss] = "text"
    """What a task's loss is: of question and answer together, of the gold `answer` given the question, or, for tasks
    with options, minus the log of the right `choice`'s probability among them, by bytes. Or each by task; `default` is
    that of all that are not named, and `text` without it. What a task counts is `optimize.task_weights`."""

    def loss_of(self, task: str) -> TaskLoss:
        """Return what a task's loss is."""
        if isinstance(self.task_loss, str):
            return self.task_loss
        return self.task_loss.get(task, self.task_loss.get(DEFAULT, "text"))


class TargetParameters(TaskLossParameters):
    """What influence is measured on."""

    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    """Tasks that decide; the others only judge. null: all."""
    targets: Literal["tasks", "heldout", "all"] = "tasks"
    """What influence is measured on: the tasks, the held-out slice of each domain, or both. `bpb/<domain>` is scored on
    the held-out slices, so with `heldout` or `all` it is no longer a score of unseen text."""

    def deciding(self, tasks: Sequence[str]) -> list[str]:
        """Return those of the corpus's tasks that influence is measured on."""
        return [task for task in tasks if self.tasks is None or task in self.tasks]


class AmountParameters(ParameterGroup):
    """How much text is measured."""

    tokens: PositiveInt | Literal["auto"] = 16_384
    """Tokens of each domain whose mean gradient is taken, rounded up to whole sequences; `auto` doubles them until the
    mixture that the measurement implies is stable."""
    max_tokens: Annotated[PositiveInt, only_if("tokens", "auto")] = 131_072
    """Most tokens of each domain that `tokens: auto` takes."""
    items_per_task: PositiveInt | None = 96
    """Query items per task; `null` takes all."""
    micro_batches: Annotated[int, Field(ge=2)] = 4
    """Parts that each mean gradient is split into for its standard error."""

    @property
    def most_tokens(self) -> int:
        """Tokens of each domain that are measured at the most."""
        return self.max_tokens if self.tokens == "auto" else self.tokens


class ScoringParameters(TargetParameters, AmountParameters):
    """On which text lookahead runs, proxies and n-gram models are scored: what influence is measured on, and its rest.

    How much influence is measured on counts only where targets are held-out slices, which the two share.
    """

    tokens: Annotated[PositiveInt | Literal["auto"], only_if("targets", "heldout", "all")] = 16_384
    max_tokens: Annotated[PositiveInt, only_if("targets", "heldout", "all"), only_if("tokens", "auto")] = 131_072
    items_per_task: Annotated[PositiveInt | None, only_if("targets", "heldout", "all")] = 96
    micro_batches: Annotated[int, Field(ge=2), only_if("targets", "heldout", "all")] = 4
    batch_size: Annotated[PositiveInt, UNRECORDED] = 16


class ReadingParameters(ParameterGroup):
    """How the text of a measurement is read."""

    context: Annotated[int, Field(ge=2)] | None = 32
    """Tokens per sequence that domains are measured on, the beginnings of as many more windows; `null` takes whole
    windows of `train.context`. More and shorter texts have a far smaller error for the same number of tokens."""
    batch_size: Annotated[PositiveInt, UNRECORDED] = 16
    """Sequences of `train.context` per forward pass, or as many tokens in shorter ones; changes speed and memory, not
    the result."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs matrix products of the model in bfloat16; weights, gradients, second moments and all that is made
    of them stay in float32."""
    device: Annotated[str, UNRECORDED] = "auto"
    """`auto` takes the GPU where there is one."""

    def domain_context(self, train_context: int) -> int:
        """Return the tokens per sequence that domains are measured on."""
        return train_context if self.context is None else min(self.context, train_context)

    def sequences_at_once(self, train_context: int) -> int:
        """Return the sequences of a domain per forward pass."""
        return max(1, self.batch_size * train_context // self.domain_context(train_context))


class GradientParameters(TargetParameters, AmountParameters, ReadingParameters):
    """What the mean gradients are taken of, and how they are kept."""

    kept_precision: KeptPrecision = "float32"
    """Of the gradients on disk: `bfloat16` takes half the room; it is rounded to stochastically, so without bias."""


class CoverageParameters(ParameterGroup):
    """Which curvature is meant, and of which parameters of the model."""

    curvature: Curvature = "kfac"
    """C: the identity, the optimiser's second moment, or the Fisher per token: its diagonal, in Kronecker factors, or
    with the factors' eigenvalues corrected."""
    fisher: Annotated[Fisher, only_if("curvature", *FITTED)] = "empirical"
    """Labels that the Fisher is fitted with: those of the text, or sampled from the model (`true`)."""
    groups: Groups = Field(default_factory=lambda: list(_ALL_GROUPS))
    """Kinds of parameters that take part, in a list or joined by `+`. A head tied to the embedding belongs to
    `embedding`."""

    @property
    def needs_factors(self) -> bool:
        """Whether the curvature is fitted on text before it is used."""
        return self.curvature in FITTED


class FactorParameters(ReadingParameters, CoverageParameters):
    """What the Fisher is fitted on, and how."""

    factor_tokens: Annotated[PositiveInt, only_if("curvature", *FITTED)] = 8_192
    """Tokens of all domains together that the Fisher is estimated from."""
    factor_mixture: Annotated[Literal["uniform", "current"], only_if("curvature", *FITTED)] = "uniform"
    """How these are spread: `uniform` has all domains alike; `current` has them in proportion to the mixture that the
    round was trained under, whose curvature the theory is about."""


class CurvatureParameters(CoverageParameters):
    """The function f(C) that gradients are multiplied with, and how the products are made."""

    inverse: Annotated[Inverse, only_if("curvature", "adam", *FITTED)] = "damped"
    """f(μ): `damped` is 1/(μ + λ); `horizon` is (1 − exp(−μ/λ))/μ, gradient flow for a finite time."""
    damping: Annotated[PositiveFloat, only_if("curvature", "adam", *FITTED)] = 0.1
    """λ, in `damping_unit`. `identity` ignores it."""
    damping_unit: Annotated[DampingUnit, only_if("curvature", "adam", *FITTED)] = "relative"
    """`relative`: times the mean eigenvalue of each block; `absolute`: as it is; `horizon`: over the sum of the
    learning rates of the coming chunk."""
    memory_megabytes: Annotated[PositiveFloat, UNRECORDED] = 1_000.0
    """Most working memory of the products of gradients, beside the model; changes speed, not the result."""
    device: Annotated[str, UNRECORDED] = "auto"

    @property
    def needs_optimizer(self) -> bool:
        """Whether the curvature or its damping reads the optimiser's state, where the checkpoint has one."""
        return self.curvature == "adam" or (self.curvature != "identity" and self.damping_unit == "horizon")


class OpenParameters(ParameterGroup):
    """What the candidates of a validation leave open."""

    fisher: Fisher = "empirical"
    groups: Groups = Field(default_factory=lambda: list(_ALL_GROUPS))
    memory_megabytes: Annotated[PositiveFloat, UNRECORDED] = 1_000.0
    device: Annotated[str, UNRECORDED] = "auto"


class CalibratedParameters(ParameterGroup):
    """How influence becomes nats."""

    calibration: PositiveFloat | None = None
    """Measured over predicted effect, from branches of this very checkpoint (`validate`): gains and effects are then in
    nats per token. null: not measured, and gains are shares of the best possible. It changes no decision."""


class MatrixParameters(CurvatureParameters, CalibratedParameters):
    """What the influence matrix depends on besides the gradients."""


class GrowthParameters(GradientParameters, CurvatureParameters):
    """What a measurement depends on that grows until it is stable."""

    stable_within: Annotated[PositiveFloat, only_if("tokens", "auto")] = 0.05
    """`tokens: auto` stops when the mixtures that two halves of the measurement imply differ by no more than this share
    of the tokens."""


class StreamedParameters(GradientParameters, MatrixParameters):
    """What a measurement depends on whose gradients are not kept."""


class OwnTokensMeasurement(GradientParameters, CurvatureParameters):
    """What the influence of text that candidates draw depends on."""


class InfluenceParameters(GrowthParameters, FactorParameters, MatrixParameters):
    """Group Influence `S[t, j] = g_tᵀ f(C) g_j` at a checkpoint."""

    gradients: Annotated[Literal["auto", "keep", "stream"], UNRECORDED] = "auto"
    """`keep` leaves the gradients of all tasks and domains on disk, so that another curvature, damping or mixture needs
    no pass through the model. `stream` writes those of the tasks alone, multiplied by the curvature, and multiplies
    each of a domain with them as soon as it is there: another damping costs the domains' passes again. `auto` streams
    where gradients would take more than 10 GB, or half of the free disk."""
    rebalance_steps: NonNegativeInt = 40
    """Optimiser steps on the prior that a copy of the checkpoint is trained for before it is measured, from the second
    round on. Right after a chunk under a skewed mixture, what was read most seems to help least."""
    rebalance_tokens: NonNegativeInt | None = None
    """The same in tokens: the old name, for one release more. null: `rebalance_steps` says."""

    @model_validator(mode="after")
    def _tell_the_new_name(self) -> Self:
        if self.rebalance_tokens is not None:
            _LOG.warning(
                "influence.rebalance_tokens has become influence.rebalance_steps, in optimiser steps: what it does "
                "depends on them. The old name works in this release only."
            )
        return self

    def rebalancing_steps(self, train: StreamParameters) -> int:
        """Return the optimiser steps of the rebalancing."""
        if self.rebalance_tokens is None:
            return self.rebalance_steps
        return -(-self.rebalance_tokens // train.tokens_per_step)
