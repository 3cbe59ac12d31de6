"""`baselines`: how the methods that TiKMiX is compared with decide."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup
from tikmix_pipeline.parameters.sweep import TableSurrogate
from tikmix_pipeline.parameters.training import StreamParameters


class UnimaxParameters(ParameterGroup):
    """UniMax (arXiv 2304.09151): as uniform as repetition allows."""

    epochs: PositiveFloat = 1.0
    """N, how many times a domain may be read by the end of the run; the paper's final models have 1."""


class NgramParameters(ParameterGroup):
    """The mixture of the domains' n-gram models under which the tasks' text is most likely."""

    order: PositiveInt = 3
    """Tokens of the longest n-gram."""
    max_tokens: PositiveInt = 10_000_000
    """Training tokens of a domain that are counted, spread evenly over it; counting takes some 40 bytes for each."""
    iterations: PositiveInt = 2_000
    """At most so many steps of expectation-maximisation."""
    tolerance: PositiveFloat = 1e-5
    """It ends once no mixture can be likelier by more than this, in nats per token."""
    items: PositiveInt | Literal["measured"] | None = "measured"
    """Query items per task: `measured` is as many as TiKMiX-D is measured on in all rounds that are trained on what it
    decides, `null` all."""


class DoremiParameters(ParameterGroup):
    """DoReMi (arXiv 2305.10429): group DRO on the excess loss over a reference model."""

    preset: str | None = None
    """A built-in size for reference and proxy; `null` takes the one that the run trains."""
    tokens: PositiveInt = 500_000
    """Training tokens of the reference and, again, of the proxy; rounded up to whole steps."""
    eta: PositiveFloat = 1.0
    """η, the step of the exponentiated gradient. The paper's is 1."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 1e-3
    """c, the share of the uniform mixture in every step's weights. The paper's is 1e-3."""


class RegmixParameters(ParameterGroup):
    """RegMix (arXiv 2407.01492): many small proxies, a regression, a simulation."""

    preset: str = "llama-tiny"
    """A built-in size for the proxies."""
    proxies: Annotated[int, Field(ge=12)] = 64
    """Mixtures that a proxy is trained on, the prior among them."""
    tokens: PositiveInt = 200_000
    """Training tokens of a proxy, rounded up to whole steps."""
    min_strength: PositiveFloat = 0.1
    """The smallest of the strengths `s` in `w ~ Dirichlet(s · K · prior)`, spaced evenly in their logarithm."""
    max_strength: PositiveFloat = 5.0
    """The largest."""
    max_ratio: Annotated[float, Field(gt=1)] = 15.0
    """No share of a proxy's mixture is more than this times the prior's."""
    surrogate: TableSurrogate = "gp"
    """The regression, one per target."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Of the cross-validations by which it chooses its own settings, and is judged."""
    samples: PositiveInt = 100_000
    """Mixtures of the simulation."""
    top: PositiveInt = 128
    """Of these, the ones with the least predicted loss, whose mean is the mixture."""
    kl: NonNegativeFloat = 0.0
    """Nats per token that each nat of `KL(w ‖ prior)` adds to a mixture's predicted loss. RegMix has none; Olmix has
    0.1, in bits per byte."""
    items: PositiveInt | Literal["measured"] | None = "measured"
    """Query items per task that proxies are scored on; as those of n-grams."""
    workers: Annotated[PositiveInt | Literal["auto"], UNRECORDED] = "auto"
    """Proxies trained at a time, each in one thread: `auto` is one per core on a CPU, and one on a GPU."""

    def steps(self, train: StreamParameters) -> int:
        """Return the optimiser steps of a proxy."""
        return -(-self.tokens // train.tokens_per_step)

    @model_validator(mode="after")
    def _require_order(self) -> "RegmixParameters":
        if self.min_strength > self.max_strength:
            raise ValueError(f"min_strength ({self.min_strength:g}) is above max_strength ({self.max_strength:g})")
        if self.top > self.samples:
            raise ValueError(f"top ({self.top}) is more than samples ({self.samples}): lower the first")
        return self


class TargetItemsParameters(ParameterGroup):
    """How much of the targets a method decides by, as n-grams and RegMix."""

    items: PositiveInt | Literal["measured"] | None = "measured"
    """Query items per task: `measured` is as many as TiKMiX-D is measured on in all rounds that are trained on what it
    decides, `null` all."""


class MixminParameters(TargetItemsParameters):
    """MixMin (arXiv 2502.10510): a branch of the checkpoint per domain, and the likeliest mixture of them."""

    tokens: PositiveInt = 200_000
    """Training tokens of a branch, rounded up to whole steps; its learning rate falls to zero over them."""
    unit: Literal["item", "token"] = "item"
    """Of what the branches' probabilities are mixed: whole items by their length, as the published code does, or single
    tokens."""
    iterations: PositiveInt = 2_000
    """At most so many steps of expectation-maximisation."""
    tolerance: PositiveFloat = 1e-5
    """It ends once no mixture can be likelier by more than this, in nats per token."""
    workers: Annotated[PositiveInt | Literal["auto"], UNRECORDED] = "auto"
    """Branches trained at a time, each in one thread: `auto` is one per core on a CPU, and one on a GPU."""

    def steps(self, train: StreamParameters) -> int:
        """Return the optimiser steps of a branch."""
        return -(-self.tokens // train.tokens_per_step)


class AlignmentParameters(TargetItemsParameters):
    """A training whose mixture follows the gradients of the domains and that of the targets."""

    tokens: PositiveInt = 500_000
    """Training tokens, rounded up to whole steps."""
    every: PositiveInt = 2
    """Optimiser steps from one measurement of the gradients to the next."""
    rows: PositiveInt = 8
    """Windows of each domain, of `train.context` tokens, that its gradient is taken on, new ones each time."""
    drawn_items: PositiveInt = 16
    """Of each target's items, how many its gradient is taken on, drawn anew each time."""

    def steps(self, train: StreamParameters) -> int:
        """Return the optimiser steps of the training."""
        return -(-self.tokens // train.tokens_per_step)


class DgaParameters(AlignmentParameters):
    """DGA (arXiv 2410.02498): mirror descent on the alignment of gradients, and a moving average of it."""

    eta: PositiveFloat = 3.0
    """η, the step of the mirror descent, by the inner product of two gradients in nats per token."""
    beta: Annotated[float, Field(gt=0, le=1)] = 0.1
    """β, the share of each step's mixture in the moving average; 1 is no average."""


class FastmixParameters(AlignmentParameters):
    """FastMix (arXiv 2606.14971): one proxy, the gradients of its head, Adam on the logits of the mixture."""

    preset: str = "llama-tiny"
    """A built-in size for the proxy."""
    learning_rate: PositiveFloat = 0.1
    """Of Adam. The published runs have 0.01, and some 1,600 measurements."""


class BaselineParameters(ParameterGroup):
    """The strategies that decide once and keep their mixture; `uniform` and `proportional` have nothing to set."""

    unimax: UnimaxParameters = UnimaxParameters()
    ngram: NgramParameters = NgramParameters()
    doremi: DoremiParameters = DoremiParameters()
    regmix: RegmixParameters = RegmixParameters()
    mixmin: MixminParameters = MixminParameters()
    dga: DgaParameters = DgaParameters()
    fastmix: FastmixParameters = FastmixParameters()
