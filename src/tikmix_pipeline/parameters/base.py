"""Groups of parameters, the facets that they consist of, and views: what a result may depend on, and what it does."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, TypeVar, dataclass_transform, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo

Facet = TypeVar("Facet", bound="ParameterGroup")


def split_names(value: Any) -> Any:
    """Return the names of a text that joins them by `+`, and any other value as it is."""
    return value.split("+") if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(split_names)]
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


class OnDisk:
    """What files hold that a node reads besides its inputs, looked up only where a record is asked for."""

    def __init__(self, look_up: Callable[[], Any]) -> None:
        """Take a function that returns digests or signatures of the files, JSON-able."""
        self._look_up = functools.cache(look_up)

    def recorded(self) -> Any:
        """Return what tells the files from others.

        Raises:
            TikmixError: a file that the parameters name is not there.
        """
        return self._look_up()


def unrecorded() -> Any:
    """Declare a field of a view on which no result depends."""
    return dataclasses.field(metadata={UNRECORDED: True})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(unrecorded,))
class View:
    """Everything besides its inputs that a node may read; every subclass is a frozen dataclass.

    A field that is annotated with a facet holds that facet of the parameter group of its name; other fields hold the
    parameter of their name, or a value that was derived from parameters. Nothing reaches a node any other way, and the
    record is made from the view itself, so that no value can matter to a node without standing in its record.
    """

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    @classmethod
    def of(cls, parameters: Any, **derived: Any) -> Self:
        """Take the view out of all parameters of a run; `derived` are the fields that are no parameters themselves."""
        values = dict(derived)
        for name, kind in _kinds(cls).items():  # type: ignore[arg-type]  # a class can be hashed
            if name not in derived:
                value = getattr(parameters, name)
                values[name] = value.narrowed(kind) if isinstance(value, ParameterGroup) else value
        return cls(**values)

    def recorded(self) -> dict[str, Any]:
        """Return the values that results may depend on, as JSON can hold them."""
        return {
            field.name: value.recorded() if isinstance(value, OnDisk) else plain(value)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if not field.metadata.get(UNRECORDED)
            for value in [getattr(self, field.name)]
        }


@functools.cache
def _kinds(view: Any) -> dict[str, Any]:
    return get_type_hints(view)


class NoParameters(View):
    """The view of a node that depends on its inputs alone."""
