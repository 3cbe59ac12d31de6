"""The base of every parameter group, and what a group says about which values a result depends on."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo

Facet = TypeVar("Facet", bound="ParameterGroup")


def _split(value: Any) -> Any:
    return value.split("+") if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_split)]
"""A list of names; on the command line, where a comma ends a parameter, `one+other`."""


UNRECORDED = "unrecorded"
"""Marks a parameter on which no result depends, so that no provenance record holds it."""

_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class OnlyIf:
    """Marks a parameter that counts only while another one of its group has one of some values.

    Otherwise it is left out of what a node is handed, so that nothing can read it, and out of provenance records.
    """

    field: str
    values: tuple[Any, ...]


def only_if(field: str, *values: Any) -> OnlyIf:
    """Mark a parameter as counting only while `field`, in the same group, has one of `values`."""
    return OnlyIf(field, values)


class ParameterGroup(BaseModel):
    """A group of parameters; an unknown key or a value of the wrong type is an error.

    A group may inherit from several *facets*, smaller groups of what one piece of code reads. A function that is
    annotated with a facet can read nothing else, which the type checker proves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    def narrowed(self, facet: type[Facet]) -> Facet:
        """Return the fields of a facet, a class that this group inherits from, that count under the present values."""
        counting = {
            name: self.__dict__[name]
            for name, field in facet.model_fields.items()
            if name in self.__dict__ and self._counts(field)
        }
        narrow = facet.model_construct(**{name: _narrowed(value) for name, value in counting.items()})
        for name in facet.model_fields.keys() - counting.keys():
            del narrow.__dict__[name]  # pydantic has filled in the default
        return narrow

    def without(self, facet: type["ParameterGroup"]) -> Self:
        """Return the group without the fields of a facet, which do not count because of what another group says."""
        narrow = self.model_copy()
        for name in facet.model_fields:
            narrow.__dict__.pop(name, None)
        return narrow

    def recorded(self) -> dict[str, Any]:
        """Return the values that results may depend on, under their public names, as JSON can hold them."""
        return {
            field.alias or name: plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if name in self.__dict__ and UNRECORDED not in field.metadata
        }

    def _counts(self, field: FieldInfo) -> bool:
        conditions = [mark for mark in field.metadata if isinstance(mark, OnlyIf)]
        return all(self.__dict__.get(condition.field, _ABSENT) in condition.values for condition in conditions)


def _narrowed(value: Any) -> Any:
    """Leave out, in the groups that a value consists of, what does not count in them."""
    if isinstance(value, ParameterGroup):
        return value.narrowed(type(value))
    if isinstance(value, Mapping):
        return {key: _narrowed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_narrowed(inner) for inner in value)
    return value


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; of a parameter group what it records."""
    if isinstance(value, ParameterGroup):
        return value.recorded()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value
