"""Recipes: what made an artifact, written beside it, so that nothing stale is ever used.

A recipe is a Merkle node: the step, the code it runs, the parameters that matter to it and the fingerprints of its
inputs. Two artifacts with one fingerprint were made from the same things, all the way back to the sources.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tikmix_pipeline.files import read_json, sha256_of_file, write_json

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
        """The SHA-256 of the recipe. The step's name is left out: its code speaks for it."""
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


def write_recipe(artifact: Path, recipe: Recipe) -> None:
    """Record `recipe` beside a finished artifact, with the digest of its bytes when it is a file."""
    content = recipe.to_dict()
    if artifact.is_file():
        content["sha256"] = sha256_of_file(artifact)
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
    if "sha256" in written and written["sha256"] != sha256_of_file(artifact):
        return "altered", "it was changed after it was written"
    return "fresh", ""


def differences(written: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Say in words what differs between the recipe on disk and the one expected."""
    names = sorted(written["inputs"].keys() | expected["inputs"].keys())
    changed = [name for name in names if written["inputs"].get(name) != expected["inputs"].get(name)]
    return [*own_changes(written, expected), *([f"made from another {', '.join(changed)}"] if changed else [])]


def own_changes(written: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Say in words what changed in the step itself: its parameters and its code, not its inputs."""
    before, after = _flatten(written["parameters"]), _flatten(expected["parameters"])
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


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        key: leaf
        for name, part in value.items()
        for key, leaf in _flatten(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }
