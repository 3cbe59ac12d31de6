"""By how much text may get worse under a decided mixture (`optimize.guardrails`)."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from tikmix_pipeline.parameters.base import ParameterGroup

GuardrailUnit = Literal["share", "stderr", "nats", "percent", "bits_per_byte"]

IN_NATS: frozenset[GuardrailUnit] = frozenset({"nats", "percent", "bits_per_byte"})
"""Units that mean nothing until branches have told what a gain is in nats."""


class Guardrail(ParameterGroup):
    """By how much some text may get worse than under the prior."""

    tolerance: NonNegativeFloat
    """How much worse, in `unit`."""
    unit: GuardrailUnit = "share"
    """`share`: of what the tasks gain on average. `stderr`: standard errors of that text's gain, under the mixture that
    would be decided without guardrails. `nats` per token of that text, `percent` of its loss, or `bits_per_byte`, where
    branches say what a gain is in nats (`optimize.branches`)."""
    domains: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Whose held-out text it is about, the mean of theirs, or for `each_domain` the text of each; null: the domain or
    the task that it is named for, or for `heldout` and `each_domain` all domains."""
