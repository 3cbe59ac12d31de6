"""The base of every parameter group: typed, immutable, and deaf to unknown keys."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _split(value: Any) -> Any:
    return value.split("+") if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_split)]
"""A list of names; on the command line, where a comma ends a parameter, `one+other`."""


class ParameterGroup(BaseModel):
    """A group of parameters; an unknown key or a value of the wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
