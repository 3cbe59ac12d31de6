"""`@step`: what a node declares so that its artifacts can be told stale from fresh."""

import ast
import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tikmix_pipeline.parameters import RunParameters

Relevant = Callable[[RunParameters, int, Path], Mapping[str, Any]]
"""Given all parameters, the round and the project's root: the values that change what a step makes."""

Function = TypeVar("Function", bound=Callable[..., Any])

_PACKAGE = Path(__file__).resolve().parents[1]


def step(*, code: tuple[str, ...], relevant: Relevant) -> Callable[[Function], Function]:
    """Mark a node function with the code it runs and the parameters that matter to its outputs.

    Args:
        code: modules or packages below `tikmix_pipeline`, by dotted name, whose change makes the outputs stale.
        relevant: picks what matters; anything else may change without a rebuild.
    """

    def mark(function: Function) -> Function:
        function.code = code  # type: ignore[attr-defined]
        function.relevant = relevant  # type: ignore[attr-defined]
        return function

    return mark


def code_hash(names: tuple[str, ...]) -> str:
    """Hash the named modules' code without comments, docstrings and layout.

    The hash is the same for the same code on one Python version.
    """
    digest = hashlib.sha256()
    for name in names:
        path = _PACKAGE.joinpath(*name.split("."))
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            digest.update(_hash_of_file(file).encode())
    return digest.hexdigest()


@cache
def _hash_of_file(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_docstring(part)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_docstring(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
