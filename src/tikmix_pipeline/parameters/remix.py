"""`remix`: what a team tells of a run that it trains elsewhere."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tikmix_pipeline.parameters.base import ParameterGroup
from tikmix_pipeline.parameters.decision import Weight
from tikmix_pipeline.parameters.training import ScheduleParameters


class DomainSize(ParameterGroup):
    """How much text a domain has, where only a sample of it is at hand."""

    tokens: PositiveFloat | None = None
    """By the checkpoint's own tokenizer."""
    bytes: PositiveFloat | None = None
    """Of UTF-8 text; the sample tells how many bytes a token has."""

    @model_validator(mode="after")
    def _require_one(self) -> "DomainSize":
        if (self.tokens is None) == (self.bytes is None):
            raise ValueError("give either tokens or bytes")
        return self


class ExternalParameters(ParameterGroup):
    """What a team tells of a run that it trains elsewhere."""

    current: dict[str, Weight] | str | None = None
    """The mixture that the checkpoint was last trained under: weights per token, or the path of a `mixture.json`. null:
    what the last `remix` of this experiment decided; the first time, `tikmix.prior`."""
    consumed: dict[str, NonNegativeFloat] | NonNegativeFloat | None = None
    """Tokens that the checkpoint has been trained on, by domain or, dealt by `current`, in all. null: the chunks of
    this experiment's earlier rounds; the first time, none."""
    sizes: dict[str, DomainSize] = Field(default_factory=dict)
    """How much text a domain has. Of others it is counted, or estimated from the sample."""
    remaining_tokens: PositiveInt | None = None
    """Training tokens still to come, the coming chunk included: under the decided mixture no domain would be read more
    often than `optimize.max_epochs` by their end. null: by the end of the coming chunk."""


class RemixParameters(ExternalParameters):
    """The next mixture for a checkpoint that was trained elsewhere."""

    chunk_tokens: PositiveInt | None = None
    """Training tokens of the coming chunk; null: `train.chunk_tokens`."""
    prediction: str | None = None
    """A file that the what-if page of the round before recorded, to be held against what came; null: none."""

    def coming_chunk(self, train: ScheduleParameters) -> int:
        """Return the training tokens of the coming chunk."""
        return self.chunk_tokens or train.tokens_per_chunk
