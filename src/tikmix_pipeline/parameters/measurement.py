"""`influence`: how Group Influence is measured."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tikmix_pipeline.parameters.base import ParameterGroup
from tikmix_pipeline.parameters.training import TrainParameters

Curvature = Literal["identity", "adam", "diagonal", "kfac", "ekfac"]
Inverse = Literal["damped", "horizon"]
DampingUnit = Literal["relative", "absolute", "horizon"]
Group = Literal["linear", "embedding", "head", "elementwise"]

_ALL_GROUPS: tuple[Group, ...] = ("linear", "embedding", "head", "elementwise")


class InfluenceParameters(ParameterGroup):
    """Group Influence `S[t, j] = g_tᵀ f(C) g_j` at a checkpoint."""

    curvature: Curvature = "kfac"
    """C: the identity, the optimiser's second moment, or the Fisher per token: its diagonal, in Kronecker factors, or
    with the factors' eigenvalues corrected."""
    fisher: Literal["true", "empirical"] = "true"
    """Labels that the Fisher is fitted with: sampled from the model, or those of the text."""
    inverse: Inverse = "damped"
    """f(μ): `damped` is 1/(μ + λ); `horizon` is (1 − exp(−μ/λ))/μ, gradient flow for a finite time."""
    damping: PositiveFloat = 0.1
    """λ, in `damping_unit`. `identity` ignores it."""
    damping_unit: DampingUnit = "relative"
    """`relative`: times the mean eigenvalue of each block; `absolute`: as it is; `horizon`: over the sum of the
    learning rates of the coming chunk."""
    groups: Annotated[list[Group], Field(min_length=1)] = Field(default_factory=lambda: list(_ALL_GROUPS))
    """Kinds of parameters that take part. A head tied to the embedding belongs to `embedding`."""
    tokens: PositiveInt | Literal["auto"] = 16_384
    """Tokens of each domain whose mean gradient is taken, rounded up to whole sequences; `auto` doubles them until the
    mixture that the measurement implies is stable."""
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    """Tasks that decide; the others only judge. null: all."""
    context: Annotated[int, Field(ge=2)] | None = 32
    """Tokens per sequence that domains are measured on, the beginnings of as many more windows; `null` takes whole
    windows of `train.context`. More and shorter texts have a far smaller error for the same number of tokens."""
    rebalance_tokens: NonNegativeInt = 163_840
    """Tokens of the prior that a copy of the checkpoint is trained on before it is measured, from the second round on.
    Right after a chunk under a skewed mixture, what was read most seems to help least."""
    max_tokens: PositiveInt = 131_072
    """Most tokens of each domain that `tokens: auto` takes."""
    stable_within: PositiveFloat = 0.05
    """`tokens: auto` stops when the mixtures that two halves of the measurement imply differ by no more than this share
    of the tokens."""
    items_per_task: PositiveInt | None = 96
    """Query items per task; `null` takes all."""
    task_loss: Literal["answer", "text"] = "text"
    """What a task's loss covers: the gold answer given the question, or question and answer together."""
    targets: Literal["tasks", "heldout", "all"] = "tasks"
    """What influence is measured on: the tasks, the held-out slice of each domain, or both. `bpb/<domain>` is scored on
    the held-out slices, so with `heldout` or `all` it is no longer a score of unseen text."""
    factor_tokens: PositiveInt = 8_192
    """Tokens, spread evenly over domains, that the Fisher is estimated from."""
    calibration: PositiveFloat = 1.0
    """Measured over predicted effect, from `validate`; scales `effect` and nothing else."""
    micro_batches: Annotated[int, Field(ge=2)] = 4
    """Parts that each mean gradient is split into for its standard error."""
    batch_size: PositiveInt = 16
    """Sequences of `train.context` per forward pass, or as many tokens in shorter ones; changes speed and memory, not
    the result."""
    memory_megabytes: PositiveFloat = 1_000.0
    """Most working memory of the products of gradients, beside the model; changes speed, not the result."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs matrix products of the model in bfloat16; weights, gradients, second moments and all that is made
    of them stay in float32."""
    device: str = "auto"
    """`auto` takes the GPU where there is one."""

    @property
    def needs_factors(self) -> bool:
        """Whether the curvature is fitted on text before it is used."""
        return self.curvature not in ("identity", "adam")

    @property
    def needs_optimizer(self) -> bool:
        """Whether the curvature or its damping reads the optimiser's state, where the checkpoint has one."""
        return self.curvature == "adam" or self.damping_unit == "horizon"

    def rebalancing_steps(self, train: TrainParameters) -> int:
        """Return the optimiser steps of the rebalancing."""
        return -(-self.rebalance_tokens // train.tokens_per_step)

    def deciding(self, tasks: Sequence[str]) -> list[str]:
        """Return those of the corpus's tasks that influence is measured on."""
        return [task for task in tasks if self.tasks is None or task in self.tasks]

    def domain_context(self, train_context: int) -> int:
        """Return the tokens per sequence that domains are measured on."""
        return train_context if self.context is None else min(self.context, train_context)

    def sequences_at_once(self, train_context: int) -> int:
        """Return the sequences of a domain per forward pass."""
        return max(1, self.batch_size * train_context // self.domain_context(train_context))
