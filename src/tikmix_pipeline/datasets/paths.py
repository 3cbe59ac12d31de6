"""Places on disk that a node is handed: a plain folder, and a folder to work in that outlives a kill."""

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset

from tikmix_pipeline.store.keyed import KeyedEntry
from tikmix_pipeline.store.provenance import ProvenanceRecord, forget_record, remove_altered


class _GivenPath(AbstractDataset[NoReturn, Any]):
    """A path that is given, not made."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: whoever is given the path writes there himself."""
        raise NotImplementedError

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class FolderPathDataset(_GivenPath):
    """The path of a folder, for rooms that take paths as arguments."""

    def load(self) -> Path:
        """Return the path; the folder is made if need be."""
        self._filepath.mkdir(parents=True, exist_ok=True)
        return self._filepath


class WorkFolder(KeyedEntry):
    """Where a node keeps what is under way, so that a killed run goes on from it.

    It is either one state of the artifact to come, which counts for that very artifact alone (`find`, `save`,
    `discard`), or a folder whose entries each say for themselves what they are of (`begin`), so that a run with other
    parameters takes what it can. The key is the fingerprint of the artifact that the run is about to make.
    """

    def begin(self) -> Path:
        """Return the folder; where it is the artifact itself, that counts as unfinished from here on.

        What of a finished artifact was altered since is removed, so that it is made again and not taken over.
        """
        remove_altered(self.folder)
        forget_record(self.folder)
        return self.folder


class WorkFolderDataset(_GivenPath):
    """Hands a node the folder in which the artifact named `completes` is prepared."""

    def __init__(self, *, filepath: str, completes: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self.completes = completes
        self.expected: ProvenanceRecord | None = None

    def load(self) -> WorkFolder:
        """Return the folder for the artifact that the run expects."""
        return WorkFolder(self._filepath, self.expected.fingerprint if self.expected is not None else "")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "completes": self.completes}
