"""Places on disk that a node is handed: a plain folder, and the resume point inside a chunk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from kedro.io import AbstractDataset

from tikmix_pipeline.files import remove
from tikmix_pipeline.store.provenance import Recipe, artifact_status, forget_recipe, write_recipe

Place = TypeVar("Place")


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
class ResumePoint:
    """The state of an artifact under way; it counts only for the very artifact it was saved for."""

    folder: Path
    recipe: Recipe | None

    def find(self) -> Path | None:
        """Return the folder saved by an earlier, stopped run of the same recipe, if there is one."""
        if self.recipe is None or artifact_status(self.folder, self.recipe)[0] != "fresh":
            return None
        return self.folder

    def save(self, write: Callable[[Path], Any]) -> None:
        """Let `write` replace the saved folder; a kill at any moment leaves the old state or the new one."""
        if self.find() is None:
            forget_recipe(self.folder)
        write(self.folder)
        if self.recipe is not None:
            # one recipe fits every state of the same chunk, so its content is left out
            write_recipe(self.folder, self.recipe, with_content=False)

    def discard(self) -> None:
        """Remove what was saved, once the artifact itself is complete."""
        forget_recipe(self.folder)
        remove(self.folder)


@dataclass(frozen=True)
class WorkFolder:
    """A folder that a node works in, and that outlives a kill.

    Unlike a resume point it is not one state of one artifact: what lies in it says for itself what it is of, so that a
    run with other parameters finds and takes what it can.
    """

    folder: Path
    recipe: Recipe | None

    @property
    def key(self) -> str:
        """The fingerprint of what is being made."""
        return self.recipe.fingerprint if self.recipe is not None else ""

    def begin(self) -> Path:
        """Return the folder; where it is the artifact itself, that counts as unfinished from here on."""
        forget_recipe(self.folder)
        return self.folder


class _PlaceDataset(AbstractDataset[NoReturn, Place], Generic[Place]):
    """Hands a node a place to make the artifact named `completes` in, with the recipe that the run expects of it."""

    place: Callable[[Path, Recipe | None], Place]

    def __init__(self, *, filepath: str, completes: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.completes = completes
        self.metadata = metadata
        self.expected: Recipe | None = None

    def load(self) -> Place:
        """Return the place for the artifact that the run expects."""
        return type(self).place(self._filepath, self.expected)

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: the node writes in the place itself."""
        raise NotImplementedError

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "completes": self.completes}


class ResumePointDataset(_PlaceDataset[ResumePoint]):
    """Hands a node the resume point of the artifact named `completes`."""

    place = ResumePoint


class WorkFolderDataset(_PlaceDataset[WorkFolder]):
    """Hands a node the folder to make the artifact named `completes` in."""

    place = WorkFolder
