"""Which code a step runs: found by reading it, so that none can be forgotten.

A node function imports the rooms it uses, in its body or above it. From there imports are followed through the science
rooms. The hash covers the function, what it calls in its own file, and every module found; comments, docstrings and
layout do not count. Parameters count by their values, and Kedro's wiring not at all. Neither does how processes are
started and how a measurement is dealt to them: what they run is what one process runs, and that counts.
"""

import ast
import contextlib
import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = "tikmix_pipeline"
_ROOT = Path(__file__).resolve().parents[1]
_FOLLOWED = (
    *("baselines", "corpus", "export", "influence", "lm", "mixture", "ranks.training", "report", "statistics"),
    *("pipelines.branches", "pipelines.compare", "pipelines.decisions", "pipelines.measuring"),
    "pipelines.reweight.exports",
)
_LIBRARIES = frozenset({"numpy", "rensa", "scipy", "sklearn", "tokenizers", "torch", "transformers", "xgboost"})
"""Libraries whose version may change the bits of a result."""
_DISTRIBUTIONS = {"sklearn": ("scikit-learn",), "xgboost": ("xgboost-cpu", "xgboost")}
"""What they are installed as where that is another name; the first that is there."""


@dataclass(frozen=True)
class Code:
    """The code of a step.

    Attributes:
        digest: SHA-256 of all of it.
        modules: the modules below `tikmix_pipeline` it reaches.
        libraries: version of each library that these import and that may change results.
    """

    digest: str
    modules: tuple[str, ...]
    libraries: dict[str, str]


@cache
def code_of(function: Callable[..., Any]) -> Code:
    """Find the code that a node function runs."""
    definitions = _reached_definitions(function)
    found: dict[str, None] = {}
    queue = [name for definition in definitions for name in _imports(definition)]
    libraries: set[str] = set()
    while queue:
        name = queue.pop()
        libraries |= {name.split(".")[0]} & _LIBRARIES
        module = _module_named(name)
        if module is not None and module not in found:
            found[module] = None
            queue += _imports_of(module)
    digest = hashlib.sha256("".join(ast.dump(definition) for definition in definitions).encode())
    for module in sorted(found):
        digest.update(_digest(module).encode())
    versions = {name: _version(name) for name in sorted(libraries)}
    return Code(digest.hexdigest(), tuple(sorted(found)), versions)


def _version(library: str) -> str:
    *others, last = _DISTRIBUTIONS.get(library, (library,))
    for name in others:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return importlib.metadata.version(last)


def _reached_definitions(function: Callable[..., Any]) -> list[ast.AST]:
    """Return the function and what it uses of its own file, functions and constants alike."""
    tree = _without_docstrings(ast.parse(inspect.getsource(inspect.getmodule(function) or function)))
    by_name: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            by_name[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            by_name[node.targets[0].id] = node
        elif isinstance(node, ast.ImportFrom):
            by_name |= {a.asname or a.name: ast.ImportFrom(node.module, [a], node.level) for a in node.names}
    reached: dict[str, ast.AST] = {}
    queue = [function.__name__]
    while queue:
        name = queue.pop()
        if name in by_name and name not in reached:
            reached[name] = by_name[name]
            queue += [node.id for node in ast.walk(by_name[name]) if isinstance(node, ast.Name)]
    return [reached[name] for name in sorted(reached)]


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full names that a piece of code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_named(name: str) -> str | None:
    """Return the followed module that a full name lies in, if any."""
    parts = name.split(".")
    if parts[0] != _PACKAGE:
        return None
    for end in (len(parts), len(parts) - 1):
        module = ".".join(parts[1:end])
        if module.startswith(_FOLLOWED) and _ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file():
            return module
    return None


@cache
def _tree(module: str) -> ast.Module:
    file = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return _without_docstrings(ast.parse(file.read_text(encoding="utf-8")))


@cache
def _imports_of(module: str) -> tuple[str, ...]:
    return tuple(_imports(_tree(module)))


@cache
def _digest(module: str) -> str:
    return hashlib.sha256(ast.dump(_tree(module)).encode()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_docstring(part)]  # type: ignore[attr-defined]
    return tree


def _is_docstring(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
