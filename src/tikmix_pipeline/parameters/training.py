"""`model`, `train` and `engine`: what is trained, how a chunk of training goes, and where many jobs run."""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup, only_if

Momentum = Annotated[float, Field(ge=0, lt=1)]


class ConfigParameters(ParameterGroup):
    """How a checkpoint's configuration is read."""

    trust_remote_code: Annotated[bool, UNRECORDED] = False
    """Run the Python code that comes with `checkpoint`. Leave this off unless you wrote it."""


class LoadParameters(ConfigParameters):
    """How a checkpoint is loaded."""

    attention: Literal["sdpa", "eager"] = "sdpa"
    """`eager` is for architectures without PyTorch's fused attention, such as Gemma 2, Mamba and BLOOM."""


class ModelParameters(LoadParameters):
    """A built-in size, or the user's own checkpoint."""

    preset: Annotated[str, only_if("checkpoint", None)] = "llama-1m"
    """One of `tikmix_pipeline.lm.presets.PRESETS`; ignored when `checkpoint` is given."""
    checkpoint: str | None = None
    """A folder that `AutoModelForCausalLM.from_pretrained` reads, as the starting point."""


class ContextParameters(ParameterGroup):
    """How long a training sequence is."""

    context: Annotated[int, Field(ge=2)] = 256
    """Tokens per sequence."""


class StreamParameters(ContextParameters):
    """The batches that training reads."""

    batch_size: PositiveInt = 16
    """Sequences per optimiser step, over all ranks."""

    @property
    def tokens_per_step(self) -> int:
        """Training tokens of one optimiser step."""
        return self.batch_size * self.context


class DeviceParameters(ParameterGroup):
    """Where the work is done."""

    device: Annotated[str, UNRECORDED] = "auto"
    """`auto` takes the GPU where there is one."""


class ProcessParameters(DeviceParameters):
    """How the work is spread over processes. Results depend on none of it, beyond rounding."""

    world_size: Annotated[PositiveInt, UNRECORDED] = 1
    """Ranks: processes that train together, one per GPU. Not a matter of the result, beyond rounding."""
    shard: Annotated[PositiveInt | None, UNRECORDED] = None
    """Ranks that share one copy of the model; `None`: all of them, 1: a whole copy each."""
    max_restarts: Annotated[NonNegativeInt, UNRECORDED] = 3
    """How often the ranks are started again when one of them dies, from the last resume point."""
    launch: Annotated[str | None, UNRECORDED] = None
    """Command that starts the ranks, on several machines as a rule, `{folder}` being what they work in; `None`: they
    are started on this machine."""
    activation_checkpointing: Annotated[bool, UNRECORDED] = False
    """Compute the activations of a block again in the backward pass, instead of keeping them."""
    compile_blocks: Annotated[bool, UNRECORDED] = False
    """Compile every block of the model (`torch.compile`)."""


class SecondMomentParameters(ParameterGroup):
    """What AdamW divides its steps by."""

    beta2: Momentum = 0.95
    """Decay of AdamW's mean of squared gradients."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of that mean."""


class RestoreParameters(StreamParameters, ProcessParameters):
    """How a checkpoint's model and its place in the text are restored."""


class ProductParameters(ProcessParameters, SecondMomentParameters):
    """What products of gradients through a curvature depend on."""


class GrowingParameters(RestoreParameters, ProductParameters):
    """What a measurement depends on that grows until it is stable."""


class MeasuredParameters(StreamParameters, ProductParameters):
    """What an influence matrix depends on, and what its rebalancing cost."""


class StreamedTraining(GrowingParameters, MeasuredParameters):
    """What a measurement depends on whose gradients are not kept, and what its rebalancing cost."""


class StepParameters(GrowingParameters, MeasuredParameters):
    """What an optimiser step depends on, but for its learning rate's schedule."""

    micro_batch_size: PositiveInt | None = None
    """Sequences per forward pass of a rank; smaller than its share of `batch_size` accumulates gradients."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` moves the matrices of the blocks by Muon and the rest by AdamW."""
    learning_rate: PositiveFloat = 3e-3
    """The highest, between warm-up and decay."""
    muon_learning_rate: Annotated[PositiveFloat, only_if("optimizer", "muon")] = 2e-2
    """The highest of Muon's steps."""
    weight_decay: NonNegativeFloat = 0.1
    """On matrices and embeddings, not on norms and biases."""
    beta1: Momentum = 0.9
    """Decay of AdamW's mean of gradients."""
    gradient_clip: PositiveFloat = 1.0
    """Largest global gradient norm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` keeps float32 weights and runs matrix products in bfloat16."""
    save_every_steps: Annotated[PositiveInt, UNRECORDED] = 50
    """Interval of the resume points inside a chunk."""


class ScheduleParameters(StreamParameters):
    """How long a chunk is, and the learning rate over the whole run. Amounts are tokens over the whole run."""

    chunk_tokens: PositiveInt = 500_000
    """Training tokens per round, rounded up to whole steps."""
    learning_rate: PositiveFloat = 3e-3
    """The highest, between warm-up and decay."""
    warmup_tokens: NonNegativeInt = 50_000
    """Length of the linear rise of the learning rate at the start of the run."""
    decay_tokens: NonNegativeInt = 250_000
    """Length of the linear decay to `final_learning_rate_fraction` at the very end of the last round."""
    final_learning_rate_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the learning rate that is left at the end of the decay."""

    @property
    def steps_per_chunk(self) -> int:
        """Optimiser steps of one chunk."""
        return -(-self.chunk_tokens // self.tokens_per_step)

    def steps_of(self, tokens: int | None) -> int:
        """Return the optimiser steps of so many tokens, rounded up; those of one chunk for None."""
        return self.steps_per_chunk if tokens is None else -(-tokens // self.tokens_per_step)

    @property
    def tokens_per_chunk(self) -> int:
        """Training tokens of one chunk, in whole steps."""
        return self.steps_per_chunk * self.tokens_per_step


class ScoredTextParameters(ContextParameters, DeviceParameters):
    """How text is scored."""


class EvaluationParameters(ScoredTextParameters):
    """How much text a checkpoint is scored on after each round."""

    evaluation_items: PositiveInt | None = 256
    """Items per task scored after each round."""
    evaluation_windows: PositiveInt | None = 32
    """Held-out windows per domain scored after each round."""


class FinalEvaluationParameters(ScoredTextParameters):
    """How much text the last round's checkpoint is scored on."""

    final_items: PositiveInt | None = None
    """Items per task scored after the last round; null: all of the evaluation half."""
    final_windows: PositiveInt | None = None
    """Held-out windows per domain scored after the last round; null: all."""


class TrainParameters(StepParameters, ScheduleParameters, EvaluationParameters, FinalEvaluationParameters):
    """One chunk of training. Amounts are tokens over the whole run unless they say otherwise."""

    @model_validator(mode="after")
    def _require_equal_shares(self) -> "TrainParameters":
        if self.batch_size % self.world_size:
            raise ValueError(
                f"train.batch_size={self.batch_size} cannot be dealt to train.world_size={self.world_size} ranks: "
                "make it a multiple"
            )
        if self.shard and self.world_size % self.shard:
            raise ValueError(
                f"train.world_size={self.world_size} is no multiple of train.shard={self.shard}: every copy of the "
                "model lies on as many ranks"
            )
        if self.launch is not None and "{folder}" not in self.launch:
            raise ValueError(
                "train.launch must name the folder that the ranks work in, as {folder}: "
                '"srun torchrun ... -m tikmix_pipeline.distributed {folder}"'
            )
        return self


def _require_shares_or_wholes(amount: float) -> float:
    if amount > 1 and amount != int(amount):
        raise ValueError(f"{amount:g}: a job takes a share of one, as 0.5, or a whole number of them")
    return amount


Amount = Annotated[float, AfterValidator(_require_shares_or_wholes)]


class EngineParameters(ParameterGroup):
    """Where jobs run that need nothing of each other. No result depends on it."""

    kind: Annotated[Literal["local", "ray"], UNRECORDED] = "local"
    """`local` is a pool of processes on this machine; `ray` a Ray cluster (`pip install 'tikmix-pipeline[ray]'`)."""
    address: Annotated[str | None, UNRECORDED] = None
    """Ray: `null` starts a cluster on this machine for as long as it is needed; `auto`, `host:port` and
    `ray://host:port` join one whose nodes all see the project's folder under the same path."""
    cpus_per_job: Annotated[Amount, Field(gt=0), UNRECORDED] = 1.0
    """Ray: cores that a job is given. A branch or arm on a CPU has one thread."""
    gpus_per_job: Annotated[Annotated[Amount, Field(ge=0)] | Literal["auto"], UNRECORDED] = "auto"
    """Ray: GPUs that a job is given, as 0.25 for four jobs on each. `auto`: one where this process would train on one,
    none elsewhere."""
    retries: Annotated[NonNegativeInt, UNRECORDED] = 3
    """Ray: times that a job is begun again when its process or its node is lost."""
