"""`influence`: how Group Influence is measured."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tikmix_pipeline.parameters.base import ParameterGroup


class InfluenceParameters(ParameterGroup):
    """Group Influence `S[t, j] = g_tᵀ (C + λI)⁻¹ g_j` at a checkpoint."""

    curvature: Literal["identity", "adam", "kfac"] = "kfac"
    damping: PositiveFloat = 0.1
    """λ as a multiple of the mean curvature eigenvalue of each parameter block. `identity` ignores it."""
    tokens_per_domain: PositiveInt = 8_192
    """Tokens of each domain whose mean gradient is taken, rounded up to whole sequences."""
    items_per_task: PositiveInt | None = 96
    """Query items per task; `null` takes all."""
    task_loss: Literal["answer", "text"] = "answer"
    """What a task's loss covers: the gold answer given the question, or question and answer together."""
    targets: Literal["tasks", "heldout", "all"] = "tasks"
    """What influence is measured on: the tasks, the held-out slice of each domain, or both. `bpb/<domain>` is scored on
    the held-out slices, so with `heldout` or `all` it is no longer a score of unseen text."""
    factor_tokens: PositiveInt = 16_384
    """Tokens, spread evenly over domains, that the curvature is estimated from (`kfac`)."""
    micro_batches: Annotated[int, Field(ge=2)] = 8
    """Parts that each mean gradient is split into for its standard error."""
    batch_size: PositiveInt = 16
    """Sequences per forward pass; changes speed and memory, not the result."""
    device: str = "auto"
    """`auto` takes the GPU where there is one."""
