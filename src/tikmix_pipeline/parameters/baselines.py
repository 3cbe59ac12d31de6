"""`baselines`: how the methods that TiKMiX is compared with decide."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup
from tikmix_pipeline.parameters.sweep import SurrogateKind
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
    surrogate: SurrogateKind = "gp"
    """The regression, one per target."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Of the cross-validations by which it chooses its own settings, and is judged."""
    samples: PositiveInt = 100_000
    """Mixtures of the simulation."""
    top: PositiveInt = 128
    """Of these, the ones with the least predicted loss, whose mean is the mixture."""
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


class BaselineParameters(ParameterGroup):
    """The strategies that decide once and keep their mixture; `uniform` and `proportional` have nothing to set."""

    unimax: UnimaxParameters = UnimaxParameters()
    ngram: NgramParameters = NgramParameters()
    doremi: DoremiParameters = DoremiParameters()
    regmix: RegmixParameters = RegmixParameters()
