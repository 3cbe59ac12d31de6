"""Provenance records: what made an artifact, written beside it, so that nothing stale is ever used.

A record is a Merkle node: the code that a pipeline node runs, the parameters that it was handed and the fingerprints of
its inputs. Two artifacts with one fingerprint were made from the same things, all the way back to the sources. The
record of `name` stands in `name.recipe.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from tikmix_pipeline.files import read_json, sha256_of_file, write_json
from tikmix_pipeline.store.keyed import key_of

_DIGESTED_BYTES = 64_000_000
"""Larger files (weights of large models) are held to their size: reading them at every start would take minutes."""

_SHOWN = 60
"""Characters of a value that a message shows."""

Status = Literal["fresh", "missing", "stale", "altered"]


@dataclass(frozen=True)
class ProvenanceRecord:
    """What an artifact is made from.

    Attributes:
        node: the pipeline node that makes it.
        code: the digest of the source code that the node runs.
        parameters: the view that the node is handed, JSON-able.
        inputs: fingerprints of the node's inputs, by dataset name.
        libraries: the versions of libraries that may change results.
        stage: the pipeline that runs the node by itself.
    """

    node: str
    code: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    libraries: Mapping[str, str] = field(default_factory=dict)
    stage: str = ""

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the record. The node's name, which holds the round, is left out, and so is its stage."""
        content = {"code": self.code, "parameters": self.parameters, "inputs": self.inputs, "libraries": self.libraries}
        return key_of(content)


@dataclass(frozen=True)
class WrittenRecord:
    """A provenance record as it stands beside an artifact.

    Attributes:
        record: what made the artifact.
        fingerprint: of the record, as it was computed then.
        version: of the record type that the artifact holds.
        content: size and digest of every file of the artifact; None where its content is not watched.
        digested_bytes: files that are larger were held to their size alone.
    """

    record: ProvenanceRecord
    fingerprint: str
    version: int = 1
    content: Mapping[str, list[int | str]] | None = None
    digested_bytes: int = _DIGESTED_BYTES


def record_path(artifact: Path) -> Path:
    """Return where the provenance record of an artifact stands."""
    return artifact.with_name(f"{artifact.name}.recipe.json")


def read_record(artifact: Path) -> WrittenRecord | None:
    """Read the record of what made an artifact, if both are there."""
    path = record_path(artifact)
    if not (artifact.exists() and path.is_file()):
        return None
    content: dict[str, Any] = read_json(path)
    # records of version 0.1 call a node a step
    node = content.get("node") or content.get("step", "")
    made_from = content["code"], content["parameters"], content["inputs"]
    record = ProvenanceRecord(node, *made_from, content.get("libraries", {}), content.get("stage", ""))
    digested_bytes = content.get("digested_bytes", _DIGESTED_BYTES)
    return WrittenRecord(
        record, content["fingerprint"], content.get("version", 1), content.get("content"), digested_bytes
    )


def write_record(
    artifact: Path, record: ProvenanceRecord, *, digested_bytes: int = _DIGESTED_BYTES, version: int = 1
) -> None:
    """Write `record` beside a finished artifact, with what the artifact's files hold, so that a change is noticed.

    Files of more than `digested_bytes` are held to their size alone; `version` is of the record type that it holds.
    """
    held = {"version": version, "content": _content(artifact, digested_bytes), "digested_bytes": digested_bytes}
    write_json(record_path(artifact), {"fingerprint": record.fingerprint, **vars(record), **held})


def forget_record(artifact: Path) -> None:
    """Take the record away before the artifact is written, so that a kill in between leaves no false one."""
    record_path(artifact).unlink(missing_ok=True)


def artifact_status(artifact: Path, expected: ProvenanceRecord) -> tuple[Status, str]:
    """Compare an artifact with the record it should have; the second value says why it is not fresh."""
    if not artifact.exists():
        return "missing", "it is not there"
    written = read_record(artifact)
    if written is None:
        return "stale", "nothing says what made it (its writing was interrupted)"
    if written.fingerprint != expected.fingerprint:
        return "stale", "; ".join(differences(written.record, expected))
    if written.content is not None:
        before, now = written.content, _content(artifact, written.digested_bytes)
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


def differences(written: ProvenanceRecord, expected: ProvenanceRecord) -> list[str]:
    """Say in words what differs between the record on disk and the one expected."""
    names = sorted(written.inputs.keys() | expected.inputs.keys())
    changed = [name for name in names if written.inputs.get(name) != expected.inputs.get(name)]
    return [*own_changes(written, expected), *([f"made from another {', '.join(changed)}"] if changed else [])]


def own_changes(written: ProvenanceRecord, expected: ProvenanceRecord) -> list[str]:
    """Say in words what changed in the node itself: its parameters and its code, not its inputs."""
    before = flatten({**written.parameters, "versions": written.libraries})
    after = flatten({**expected.parameters, "versions": expected.libraries})
    found = [
        f"{key} was {_short(before.get(key, 'not set'))}, is {_short(after.get(key, 'not set'))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    if written.code != expected.code:
        found.append(f"the code of {expected.node} has changed")
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
