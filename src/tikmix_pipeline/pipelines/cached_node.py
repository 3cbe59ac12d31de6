"""Cached nodes: a pipeline node with its view of the parameters, from which the record of its artifacts is made."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.base import View
from tikmix_pipeline.store.code import code_of
from tikmix_pipeline.store.provenance import ProvenanceRecord


def cached_node(
    function: Callable[..., Any],
    view: View,
    inputs: str | list[str],
    outputs: str | list[str],
    *,
    name: str | None = None,
    stage: str | None = None,
    number: int | None = None,
    after: Sequence[str] = (),
) -> Node:
    """Return a node that is run only where its artifacts are missing or stale.

    Args:
        function: takes the view, then the inputs. What it runs is found by reading it (`store.code`).
        view: everything besides the inputs that the function may read.
        inputs: names of datasets.
        outputs: names of datasets.
        name: of the node, within its round; None for the function's.
        stage: the pipeline that runs the node by itself, which becomes a tag; None for the one that the function is of.
        number: of the round that the node belongs to; None where it belongs to none.
        after: names of datasets that are made first, though nothing depends on them: they leave something behind that
            saves work here.
    """
    read = [inputs] if isinstance(inputs, str) else inputs

    @functools.wraps(function)
    def handed(*arguments: Any) -> Any:
        return function(view, *arguments[: len(read)])

    # Kedro looks at what it calls, which takes no view
    del handed.__wrapped__
    handed.__annotations__ = {}
    handed.view, handed.function, handed.reads = view, function, len(read)  # type: ignore[attr-defined]
    return Node(
        handed,
        [*read, *after],
        outputs,
        name=name or function.__name__,
        tags=[stage or function.__module__.split(".")[-2]],
        namespace=None if number is None else f"round_{number}",
    )


def view_of(node: Node) -> View:
    """Return the view that a cached node hands to its function."""
    view: View = node.func.view  # type: ignore[attr-defined]
    return view


def read_by(node: Node) -> tuple[str, ...]:
    """Return the inputs that a cached node depends on."""
    return tuple(node.inputs[: node.func.reads])  # type: ignore[attr-defined]


def stage_of(node: Node) -> str:
    """Return the pipeline that runs a node by itself."""
    (stage,) = node.tags
    return str(stage)


def expected_records(pipeline: Pipeline, given: Mapping[str, str] | None = None) -> dict[str, ProvenanceRecord]:
    """Return the provenance record of every dataset that a pipeline makes.

    Inputs that no node makes (folders, resume points) count through the view of the node that reads them, or by the
    fingerprints in `given`.

    Raises:
        TikmixError: a file that a view names is not there.
    """
    records: dict[str, ProvenanceRecord] = {}
    fingerprints = dict(given or {})
    for node in pipeline.nodes:
        code = code_of(node.func.function)  # type: ignore[attr-defined]
        record = ProvenanceRecord(
            node=node.name,
            code=code.digest,
            parameters=view_of(node).recorded(),
            inputs={name: fingerprints[name] for name in sorted(read_by(node)) if name in fingerprints},
            libraries=code.libraries,
            stage=stage_of(node),
        )
        records |= dict.fromkeys(node.outputs, record)
        fingerprints |= dict.fromkeys(node.outputs, record.fingerprint)
    return records
