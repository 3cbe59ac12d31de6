"""The base of every record that a run keeps as JSON: typed, frozen, and written back as it was read."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tikmix_pipeline.errors import TikmixError


class Record(BaseModel):
    """One JSON object; an unknown key, a missing one or a value of the wrong type is an error.

    A field may have another name than its key on disk, which is then its `validation_alias` and `serialization_alias`
    (not its `alias`, which type checkers take for the name of the constructor's argument). A key that is not always
    there belongs to a field whose default is None: where it was not set, it is not written either.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        ser_json_inf_nan="constants",
        use_attribute_docstrings=True,
    )

    VERSION: ClassVar[int] = 1
    """To be raised when the same keys come to mean something else."""

    def to_json(self) -> dict[str, Any]:
        """Return what was set, by its keys on disk, as plain values that JSON can hold."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            TikmixError: the content is not such a record; the message names the first key at fault.
        """
        try:
            return cls.model_validate(content, by_alias=True, by_name=False)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "it"
            raise TikmixError(
                f"This is no {cls.__name__} as this version writes it: '{key}': {first['msg']}. Delete the file and "
                "run the stage again that makes it."
            ) from error
