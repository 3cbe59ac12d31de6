"""Views: what a node is handed of the parameters, and what the provenance record of its artifacts holds."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self, dataclass_transform, get_type_hints

from tikmix_pipeline.parameters.base import ParameterGroup, plain

_UNRECORDED = "unrecorded"


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
    return dataclasses.field(metadata={_UNRECORDED: True})


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
            if not field.metadata.get(_UNRECORDED)
            for value in [getattr(self, field.name)]
        }


@functools.cache
def _kinds(view: Any) -> dict[str, Any]:
    return get_type_hints(view)


class NoParameters(View):
    """The view of a node that depends on its inputs alone."""
