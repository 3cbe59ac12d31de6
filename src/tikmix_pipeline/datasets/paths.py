"""Places on disk that a node is handed: a plain folder, and a folder to work in that outlives a kill."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset

from tikmix_pipeline.store.keyed import KeyedStore
from tikmix_pipeline.store.provenance import ProvenanceRecord, forget_record


class FolderPathDataset(AbstractDataset[NoReturn, Path]):
    """The path of a folder, for rooms that take paths as arguments."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """Return the path; the folder is made if need be."""
        self._filepath.mkdir(parents=True, exist_ok=True)
        return self._filepath

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: a path is given, not made."""
        raise NotImplementedError

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


@dataclass(frozen=True)
class WorkFolder:
    """Where a node keeps what is under way, so that a killed run goes on from it.

    It is either one state of the artifact to come, which counts for that very artifact alone (`find`, `save`,
    `discard`), or a folder whose entries each say for themselves what they are of (`begin`), so that a run with other
    parameters takes what it can.

    Attributes:
        folder: where that is.
        key: the fingerprint of the artifact that the run is about to make.
    """

    folder: Path
    key: str

    def begin(self) -> Path:
        """Return the folder; where it is the artifact itself, that counts as unfinished from here on."""
        forget_record(self.folder)
        return self.folder

    def find(self) -> Path | None:
        """Return the folder as an earlier, stopped run of the very same artifact saved it, if one did."""
        return self._store.find(self.folder.name, self.key) if self.key else None

    def save(self, write: Callable[[Path], Any]) -> None:
        """Let `write` replace the saved state; a kill at any moment leaves the old state or the new one."""
        with self._store.replacing(self.folder.name, self.key) as temporary:
            write(temporary)

    def discard(self) -> None:
        """Remove what was saved, once the artifact itself is complete."""
        self._store.discard(self.folder.name)

    @property
    def _store(self) -> KeyedStore:
        return KeyedStore(self.folder.parent)


class WorkFolderDataset(AbstractDataset[NoReturn, WorkFolder]):
    """Hands a node the folder in which the artifact named `completes` is prepared."""

    def __init__(self, *, filepath: str, completes: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.completes = completes
        self.metadata = metadata
        self.expected: ProvenanceRecord | None = None

    def load(self) -> WorkFolder:
        """Return the folder for the artifact that the run expects."""
        return WorkFolder(self._filepath, self.expected.fingerprint if self.expected is not None else "")

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: the node writes in the folder itself."""
        raise NotImplementedError

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "completes": self.completes}
