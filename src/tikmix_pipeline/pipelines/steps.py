"""`@step`: what a node declares so that its artifacts can be told stale from fresh."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tikmix_pipeline.parameters import RunParameters

Relevant = Callable[[RunParameters, int, Path], Mapping[str, Any]]
"""Given all parameters, the round and the project's root: the values that change what a step makes."""

Function = TypeVar("Function", bound=Callable[..., Any])


def nothing(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    """Say that no parameter matters to a step."""
    del parameters, round_number, root
    return {}


def step(relevant: Relevant) -> Callable[[Function], Function]:
    """Mark a node function with the parameters that matter to its outputs.

    Args:
        relevant: picks what matters; anything else may change without a rebuild. The code that a step runs needs no
            declaration: it is found by `code.code_of`.
    """

    def mark(function: Function) -> Function:
        function.relevant = relevant  # type: ignore[attr-defined]
        return function

    return mark
