"""Who reads which parameter: everything that a node looks up in parameters while it runs is noted."""

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from kedro.pipeline.node import Node

from tikmix_pipeline.datasets import FolderDataset
from tikmix_pipeline.parameters.base import ParameterGroup, View
from tikmix_pipeline.pipelines.cached_node import view_of
from tikmix_pipeline.run import current_run


class Reading:
    """The parameters that each node has read, as dotted paths."""

    def __init__(self) -> None:
        self.by_node: dict[str, set[str]] = defaultdict(set)
        self.views: dict[str, View] = {}
        self._node: str | None = None
        self._last: str | None = None
        self._silent = 0
        self._paths: dict[int, str] = {}
        self._kept: list[Any] = []  # else another object may get the identity of one that is gone

    def know(self, value: Any, path: str) -> None:
        """Give a value, and all groups inside it, the paths they are read under."""
        if isinstance(value, ParameterGroup):
            self._paths[id(value)] = path
            self._kept.append(value)
            for name, inner in value.__dict__.items():
                alias = type(value).model_fields[name].alias or name
                self.know(inner, f"{path}.{alias}" if path else alias)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                self.know(inner, f"{path}.{key}")

    def begin(self, node: Node) -> None:
        """Note what is read from here on as read by this node."""
        # what a node can only get at behind its view's back
        self.know(current_run().parameters, "")
        self._node, view = node.name, view_of(node)
        self._last = self._node
        self.views[node.name] = view
        # a field of which the view says that no result depends on it may be read unseen
        for name, value in vars(view).items():
            if name in recorded_fields(view):
                self.know(value, "validate" if name == "validation" else name)

    def end(self) -> None:
        """Note nothing from here on."""
        self._node = None

    def resume(self) -> None:
        """Note what is read from here on as read by the last node: a folder is written after its node has returned."""
        self._node = self._last

    def note(self, owner: Any, name: str) -> None:
        """Note that a field of a group, or of a view, was looked up."""
        if self._node is None or self._silent:
            return
        if isinstance(owner, View):
            if name in recorded_fields(owner) and not isinstance(vars(owner)[name], ParameterGroup):
                self.by_node[self._node].add(name)
        elif name in type(owner).model_fields and id(owner) in self._paths:
            path, alias = self._paths[id(owner)], type(owner).model_fields[name].alias or name
            self.by_node[self._node].add(f"{path}.{alias}" if path else alias)

    def copied(self, old: Any, new: Any) -> None:
        """Let a changed copy of a group be read under the paths of the old one."""
        if id(old) in self._paths:
            self.know(new, self._paths[id(old)])

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        """Note nothing inside: making a record of values is not reading them."""
        self._silent += 1
        try:
            yield
        finally:
            self._silent -= 1


def recorded_fields(view: View) -> set[str]:
    """Return the fields of a view that its record holds."""
    return {field.name for field in dataclasses.fields(view) if not field.metadata}


@contextlib.contextmanager
def noted(reading: Reading) -> Iterator[None]:
    """Note, inside, what every node reads."""
    run, copy, record, save = Node.run, ParameterGroup.model_copy, ParameterGroup.recorded, FolderDataset.save

    def noting_run(node: Node, inputs: Any = None) -> Any:
        reading.begin(node)
        try:
            return run(node, inputs)
        finally:
            reading.end()

    def noting_save(dataset: Any, data: Any) -> None:
        reading.resume()
        try:
            save(dataset, data)
        finally:
            reading.end()

    def noting_copy(group: Any, **arguments: Any) -> Any:
        new = copy(group, **arguments)
        reading.copied(group, new)
        return new

    def silent_record(group: Any) -> Any:
        with reading.silenced():
            return record(group)

    def noting(owner: Any, name: str) -> Any:
        reading.note(owner, name) if not name.startswith("_") else None
        return object.__getattribute__(owner, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Node, "run", noting_run)
        patch.setattr(FolderDataset, "save", noting_save)
        patch.setattr(ParameterGroup, "model_copy", noting_copy)
        patch.setattr(ParameterGroup, "recorded", silent_record)
        for base in (ParameterGroup, View):
            patch.setattr(base, "__getattribute__", noting, raising=False)
        yield
