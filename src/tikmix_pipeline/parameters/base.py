"""The base of every parameter group: typed, immutable, and deaf to unknown keys."""

from pydantic import BaseModel, ConfigDict


class ParameterGroup(BaseModel):
    """A group of parameters; an unknown key or a value of the wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
