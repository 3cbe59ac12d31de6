"""Which code a node runs: found by reading it, so that none can be forgotten.

From a function on, every name that it uses is looked up: in its own file, and through every import of the package, at
the top of a file or inside a function, in annotations as in calls. What is found is a set of *definitions* (functions,
classes, constants), and the digest is theirs: comments, docstrings, layout and what nothing refers to do not count.
A string `"tikmix_pipeline.module:name"` counts as a reference too.

What starts processes, draws progress bars and words mistakes is left out: no result depends on it.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PACKAGE = "tikmix_pipeline"
_ROOT = Path(__file__).resolve().parents[1]
_NOT_FOLLOWED = (
    *("errors", "jobs", "progress"),
    *(f"distributed.{name}" for name in ("job", "launch", "ray_launch", "rendezvous")),
)
_ENTRY = re.compile(rf"{_PACKAGE}(\.\w+)+:\w+")
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("numpy", "rensa", "scipy", "tokenizers", "torch", "transformers")},
    "sklearn": ("scikit-learn",),
    "xgboost": ("xgboost-cpu", "xgboost"),
}
"""Libraries whose version may change the bits of a result, with the names they may be installed under."""


@dataclass(frozen=True)
class Code:
    """The code of a node.

    Attributes:
        digest: SHA-256 of all of it.
        definitions: what it consists of, as `module:name`, the package's name left out.
        libraries: version of each library that it uses and that may change results.
    """

    digest: str
    definitions: tuple[str, ...]
    libraries: dict[str, str]

    @property
    def key(self) -> str:
        """One text that differs where the code or a version does."""
        return f"{self.digest} {sorted(self.libraries.items())}"

    @property
    def modules(self) -> set[str]:
        """The modules that the definitions stand in."""
        return {definition.partition(":")[0] for definition in self.definitions}


@functools.cache
def code_of(function: Callable[..., Any]) -> Code:
    """Find the code that a function of this package, or of a test, runs."""
    found: dict[tuple[str, str], str] = {}
    libraries: set[str] = set()
    module = inspect.getmodule(function)
    queue = [(module.__name__ if module else "", function.__qualname__.partition(".")[0])]
    while queue:
        place = queue.pop()
        if place in found:
            continue
        definition = _module(place[0]).definition(place[1])
        if definition is not None:
            found[place] = definition.digest
            queue += definition.uses
            libraries |= definition.libraries
    digest = hashlib.sha256("".join(f"{name} {found[module, name]}\n" for module, name in sorted(found)).encode())
    names = tuple(sorted(f"{module.removeprefix(f'{_PACKAGE}.')}:{name}" for module, name in found))
    return Code(digest.hexdigest(), names, {name: version_of(name) or "absent" for name in sorted(libraries)})


def version_of(library: str) -> str | None:
    """Return the version of a library that is imported under this name, None where it is not installed."""
    for distribution in LIBRARIES[library]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


@functools.cache
def installed() -> dict[str, str]:
    """Return the version of every library that may change results, and the digest of all code of this package."""
    digest = hashlib.sha256()
    for file in sorted(_ROOT.rglob("*.py")):
        digest.update(f"{file.relative_to(_ROOT).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    versions = {name: version_of(name) or "absent" for name in LIBRARIES}
    return {"tikmix-pipeline": digest.hexdigest()[:12], **versions}


@dataclass(frozen=True)
class _Definition:
    digest: str
    uses: list[tuple[str, str]]
    libraries: set[str]


@dataclass
class _Module:
    """The definitions of one file, by name; `<module>` is whatever else runs when it is imported."""

    name: str
    nodes: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    _found: dict[str, _Definition] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str, file: Path) -> "_Module":
        module = cls(name)
        for statement in _without_docstrings(ast.parse(file.read_text(encoding="utf-8"))).body:
            module._add(statement)
        return module

    def _add(self, statement: ast.stmt) -> None:
        """Sort a statement of the top level in."""
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self.imports |= _imported(statement)
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test):
            # what annotations name is the code of a node's inputs
            for inner in [*statement.orelse, *statement.body]:
                self._add(inner)
        else:
            for name in _names_bound_by(statement) or ["<module>"]:
                self.nodes.setdefault(name, []).append(statement)

    def definition(self, name: str) -> _Definition | None:
        """Return a definition with what it uses; None for a name that this file only imports, or lacks."""
        if name not in self._found:
            if name not in self.nodes:
                return None if name not in self.imports else self._passed_on(name)
            statements = self.nodes[name]
            digest = hashlib.sha256("".join(map(ast.dump, statements)).encode()).hexdigest()
            uses, libraries = self._uses(statements)
            if "<module>" in self.nodes and name != "<module>":
                uses.append((self.name, "<module>"))
            self._found[name] = _Definition(digest, uses, libraries)
        return self._found[name]

    def _passed_on(self, name: str) -> _Definition:
        uses, libraries = _resolved({name: set()}, {name: self.imports[name]})
        return _Definition("", uses, libraries)

    def _uses(self, statements: list[ast.stmt]) -> tuple[list[tuple[str, str]], set[str]]:
        """Return the definitions that some code refers to, and the libraries."""
        imports = dict(self.imports)
        used: dict[str, set[str]] = {}
        entries: list[tuple[str, str]] = []
        for node in (node for statement in statements for node in ast.walk(statement)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports |= _imported(node)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.setdefault(node.value.id, set()).add(node.attr)
            elif isinstance(node, ast.Name):
                used.setdefault(node.id, set())
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if _ENTRY.fullmatch(node.value):
                    module, _, name = node.value.partition(":")
                    entries.append((module, name))
                elif node.value.isidentifier():  # an annotation in quotes
                    used.setdefault(node.value, set())
        own = [(self.name, name) for name in used if name in self.nodes]
        found, libraries = _resolved(used, {name: imports[name] for name in used if name in imports})
        return [*own, *found, *entries], libraries


def _resolved(
    used: Mapping[str, set[str]], imports: Mapping[str, tuple[str, str | None]]
) -> tuple[list[tuple[str, str]], set[str]]:
    """Return the definitions and libraries that imported names stand for."""
    found: list[tuple[str, str]] = []
    libraries: set[str] = set()
    for alias, (module, name) in imports.items():
        root = module.partition(".")[0]
        if root != _PACKAGE:
            libraries |= {root} & LIBRARIES.keys()
            continue
        full = module if name is None else f"{module}.{name}"
        if _file_of(full) is None:
            found.append((module, name or "<module>"))
        else:  # a module: of it, what is asked for
            found += [(full, attribute) for attribute in used[alias]] or [
                (full, every) for every in _module(full).nodes
            ]
    return [place for place in found if not _is_left_out(place[0])], libraries


def _is_left_out(module: str) -> bool:
    inside = module.removeprefix(f"{_PACKAGE}.")
    return any(inside == name or inside.startswith(f"{name}.") for name in _NOT_FOLLOWED)


@functools.cache
def _module(name: str) -> _Module:
    file = _file_of(name)
    if file is None:  # a test's
        file = Path(inspect.getfile(importlib.import_module(name)))
    return _Module.read(name, file)


@functools.cache
def _file_of(name: str) -> Path | None:
    """Return the file of a module or package of this package."""
    parts = name.split(".")
    if parts[0] != _PACKAGE:
        return None
    place = _ROOT.joinpath(*parts[1:])
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _imported(statement: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str | None]]:
    """Return what an import binds: by name, the module and what of it."""
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name.partition(".")[0]: (alias.name, None) for alias in statement.names}
    return {alias.asname or alias.name: (statement.module or "", alias.name) for alias in statement.names}


def _names_bound_by(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [node.id for target in targets if target for node in ast.walk(target) if isinstance(node, ast.Name)]


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
