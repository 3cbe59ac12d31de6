"""Provenance records: what made an artifact, written beside it, so that nothing stale is ever used.

A record is a Merkle node: the code that a pipeline node runs, the parameters that it was handed and the fingerprints of
its inputs. Two artifacts with one fingerprint were made from the same things, all the way back to the sources. The
record of `name` stands in `name.recipe.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import remove, write_json
from tikmix_pipeline.store.content import DIGESTED_BYTES, Content, altered, altered_at_a_look, describe
from tikmix_pipeline.store.keyed import key_of, read_content, with_digest

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
        content: what every file of the artifact held; None where its content is not watched.
        digested_bytes: files that are larger are not read whole at a look (`store.content`).
    """

    record: ProvenanceRecord
    fingerprint: str
    version: int = 1
    content: Content | None = None
    digested_bytes: int = DIGESTED_BYTES


def record_path(artifact: Path) -> Path:
    """Return where the provenance record of an artifact stands."""
    return artifact.with_name(f"{artifact.name}.recipe.json")


def read_record(artifact: Path) -> WrittenRecord | None:
    """Read the record of what made an artifact, if both are there and the record is whole."""
    if not artifact.exists():
        return None
    content = _read(record_path(artifact))
    try:
        # records of version 0.1 call a node a step
        node = content.get("node") or content.get("step", "")
        made_from = content["code"], content["parameters"], content["inputs"]
        record = ProvenanceRecord(node, *made_from, content.get("libraries", {}), content.get("stage", ""))
        digested_bytes = content.get("digested_bytes", DIGESTED_BYTES)
        return WrittenRecord(
            record, content["fingerprint"], content.get("version", 1), content.get("content"), digested_bytes
        )
    except KeyError:
        return None


def write_record(
    artifact: Path, record: ProvenanceRecord, *, digested_bytes: int = DIGESTED_BYTES, version: int = 1
) -> None:
    """Write `record` beside a finished artifact, with what the artifact's files hold, so that a change is noticed.

    Files of more than `digested_bytes` are not read whole before they are used; `version` is of the record type that
    the artifact holds.
    """
    held = {"version": version, "content": describe(artifact, digested_bytes), "digested_bytes": digested_bytes}
    _write(record_path(artifact), {"fingerprint": record.fingerprint, **vars(record), **held})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write what a record says with its own digest, since a damaged record would vouch for anything."""
    write_json(path, with_digest(content))


def _read(path: Path) -> dict[str, Any]:
    """Read what a record says; nothing where it is missing or damaged. Earlier versions wrote no digest."""
    content = read_content(path)
    digest = content.pop("digest", None)
    return content if digest in (None, key_of(content)) else {}


def forget_record(artifact: Path) -> None:
    """Take the record away before the artifact is written, so that a kill in between leaves no false one."""
    record_path(artifact).unlink(missing_ok=True)


def artifact_status(artifact: Path, expected: ProvenanceRecord) -> tuple[Status, str]:
    """Compare an artifact with the record it should have; the second value says why it is not fresh.

    Content is compared as far as a look tells (`store.content`).
    """
    if not artifact.exists():
        return "missing", "it is not there"
    written = read_record(artifact)
    if written is None:
        return "stale", "nothing says what made it (its writing was interrupted, or its record is damaged)"
    if written.fingerprint != expected.fingerprint:
        return "stale", "; ".join(differences(written.record, expected))
    if written.content is not None:
        changed = altered_at_a_look(artifact, written.content, written.digested_bytes)
        if changed:
            return "altered", f"changed after it was written: {', '.join(changed[:3])}"
    return "fresh", ""


def require_unaltered(artifact: Path) -> None:
    """Refuse an artifact that is not, to the last byte, what was written, and have it count as altered from then on.

    Raises:
        TikmixError: saying which files have changed.
    """
    changed = _altered(artifact)
    if not changed:
        return
    content = _read(record_path(artifact))
    _write(record_path(artifact), {**content, "content": content["content"] | {name: [] for name in changed}})
    raise TikmixError(
        f"{artifact} was altered after it was written: {', '.join(changed[:3])}. It is not used. Run the stage again "
        "that makes it, or the whole pipeline: it is made anew."
    )


def remove_altered(artifact: Path) -> None:
    """Remove the files of an artifact that are not what was written, before what is left of it is used again."""
    for name in _altered(artifact):
        remove(artifact / name)


def _altered(artifact: Path) -> list[str]:
    """Return which files of an artifact are not what was written, by every byte; none where that was not noted."""
    written = read_record(artifact)
    return [] if written is None or written.content is None else altered(artifact, written.content)


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
