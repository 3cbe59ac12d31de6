"""Recipes: what made an artifact, written beside it, so that nothing stale is ever used.

A recipe is a Merkle node: the step, the code it runs, the parameters that matter to it and the fingerprints of its
inputs. Two artifacts with one fingerprint were made from the same things, all the way back to the sources.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from tikmix_pipeline.files import read_json, sha256_of_file, write_json

_DIGESTED_BYTES = 64_000_000
"""Larger files (weights of large models) are held to their size: reading them at every start would take minutes."""

_SHOWN = 60
"""Characters of a value that a message shows."""

Status = Literal["fresh", "missing", "stale", "altered"]


@dataclass(frozen=True)
class Recipe:
    """What an artifact is made from.

    Attributes:
        step: the pipeline node that makes it.
        code: hash of the source code that the step runs.
        parameters: the parameters that matter to the step, JSON-able.
        inputs: fingerprints of the step's inputs, by dataset name.
    """

    step: str
    code: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the recipe. The step's name, which holds the round, is left out."""
        content = {"code": self.code, "parameters": self.parameters, "inputs": self.inputs}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form that `differences` reads."""
        return {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "code": self.code,
            "parameters": dict(self.parameters),
            "inputs": dict(self.inputs),
        }


def recipe_path(artifact: Path) -> Path:
    """Return where the recipe of an artifact stands."""
    return artifact.with_name(f"{artifact.name}.recipe.json")


def read_recipe(artifact: Path) -> dict[str, Any] | None:
    """Read the recipe that made an artifact, if both are there."""
    path = recipe_path(artifact)
    if not (artifact.exists() and path.is_file()):
        return None
    content: dict[str, Any] = read_json(path)
    return content


def recorded_recipe(artifact: Path) -> Recipe:
    """Return the recipe that an artifact was written by; one that fits nothing where it says none."""
    written = read_recipe(artifact) or {"step": "", "code": "", "parameters": {}, "inputs": {}}
    return Recipe(written["step"], written["code"], written["parameters"], written["inputs"])


def write_recipe(
    artifact: Path, recipe: Recipe, *, with_content: bool = True, digested_bytes: int = _DIGESTED_BYTES
) -> None:
    """Record `recipe` beside a finished artifact, with what the artifact holds.

    Args:
        artifact: a file or folder.
        recipe: what made it.
        with_content: record its files, so that a change is noticed.
        digested_bytes: files that are larger are held to their size alone.
    """
    content = recipe.to_dict()
    if with_content:
        content |= {"content": _content(artifact, digested_bytes), "digested_bytes": digested_bytes}
    write_json(recipe_path(artifact), content)


def forget_recipe(artifact: Path) -> None:
    """Take the recipe away before the artifact is written, so that a kill in between leaves no false one."""
    recipe_path(artifact).unlink(missing_ok=True)


def artifact_status(artifact: Path, expected: Recipe) -> tuple[Status, str]:
    """Compare an artifact with the recipe it should have; the second value says why it is not fresh."""
    if not artifact.exists():
        return "missing", "it is not there"
    written = read_recipe(artifact)
    if written is None:
        return "stale", "nothing says what made it (its writing was interrupted)"
    if written["fingerprint"] != expected.fingerprint:
        return "stale", "; ".join(differences(written, expected.to_dict()))
    if "content" in written:
        before, now = written["content"], _content(artifact, written.get("digested_bytes", _DIGESTED_BYTES))
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if changed:
            return "altered", f"changed after it was written: {', '.join(changed[:3])}"
    return "fresh", ""


def _content(artifact: Path, digested_bytes: int) -> dict[str, list[int | str]]:
    """Return size and digest of every file of an artifact; of a large file the size alone."""
    files = sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]
    return {
        file.relative_to(artifact).as_posix() if file != artifact else file.name: _described(file, digested_bytes)
        for file in files
        if file.is_file()
    }


def _described(file: Path, digested_bytes: int) -> list[int | str]:
    size = file.stat().st_size
    return [size, _digest(file, size, file.stat().st_mtime_ns)] if size <= digested_bytes else [size]


@lru_cache(maxsize=4096)
def _digest(file: Path, size: int, modified: int) -> str:
    """Read a file once for each state it is in, which `size` and `modified` tell apart."""
    del size, modified
    return sha256_of_file(file)


def differences(written: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Say in words what differs between the recipe on disk and the one expected."""
    names = sorted(written["inputs"].keys() | expected["inputs"].keys())
    changed = [name for name in names if written["inputs"].get(name) != expected["inputs"].get(name)]
    return [*own_changes(written, expected), *([f"made from another {', '.join(changed)}"] if changed else [])]


def own_changes(written: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Say in words what changed in the step itself: its parameters and its code, not its inputs."""
    before, after = flatten(written["parameters"]), flatten(expected["parameters"])
    found = [
        f"{key} was {_short(before.get(key, 'not set'))}, is {_short(after.get(key, 'not set'))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    if written["code"] != expected["code"]:
        found.append(f"the code of {expected['step']} has changed")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one of dotted keys; an empty mapping stays as it is."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    return {
        key: leaf
        for name, part in value.items()
        for key, leaf in flatten(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }
