"""One keyed store for work under way or to be used again: what is kept counts only under the key it was kept under.

    <name>             a file or a folder
    <name>.key.json    its key, and what its files hold, written last: without it the entry is unfinished
    <key>.json         a small result, which holds its own key and digest

Resume points, the progress of a fit, the results of lookahead runs and DoReMi's models are kept this way. A kill at any
moment leaves an old entry, a new one or none, and never one that is taken for something else. An entry that was altered
after it was written counts as none, and a warning says so.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import discard, read_json, replacing, write_json
from tikmix_pipeline.store.content import altered, describe

_LOG = logging.getLogger(__name__)
_NAME_LENGTH = 24


@dataclass(frozen=True)
class KeyedEntry:
    """A folder, or a file, that counts only under one key, which names all that it is made from.

    Under an empty key nothing is found.
    """

    folder: Path
    key: str

    def find(self) -> Path | None:
        """Return where the entry stands, if it is complete, unaltered and was written under this key.

        Files that were added to a folder since do not count.
        """
        if not (self.key and self.folder.exists() and self._written.is_file()):
            return None
        said = read_content(self._written)
        if said.get("key") != self.key or not isinstance(said.get("content"), dict):
            return None
        if changed := altered(self.folder, said["content"]):
            _LOG.warning("%s was altered after it was written (%s): it is not used", self.folder, ", ".join(changed))
            return None
        return self.folder

    @contextlib.contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yield a temporary path to write the entry to; at the end it takes the place of the one before.

        After a kill the entry of the same key is found as it was or as it was to be, and one of another key not at all.
        """
        if self.find() is None:
            self._written.unlink(missing_ok=True)
        with replacing(self.folder) as temporary:
            yield temporary
        write_json(self._written, {"key": self.key, "content": describe(self.folder)})

    def save(self, write: Callable[[Path], Any]) -> None:
        """Let a function write the entry."""
        with self.replacing() as temporary:
            write(temporary)

    def discard(self) -> None:
        """Remove the entry, and the folder that it stood in if it was the last there."""
        discard(self._written)
        discard(self.folder)
        parent = self.folder.parent
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()

    @property
    def _written(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.key.json")


@dataclass(frozen=True)
class KeyedResults:
    """Small results in a folder, each in a file named by its key."""

    folder: Path

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the result that was written under this key, None where there is none, or none that is whole."""
        content = read_whole(self._path(key))
        return content if content.get("key") == key else None

    def write(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a JSON-able result under a key."""
        write_json(self._path(key), with_digest({**result, "key": key}))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:_NAME_LENGTH]}.json"


def key_of(content: Any) -> str:
    """Return the SHA-256 of JSON-able content, as a key."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON-able content, as it will be read, with its digest beside it."""
    read: dict[str, Any] = json.loads(json.dumps(content))
    return {**read, "digest": key_of(read)}


def read_whole(path: Path) -> dict[str, Any]:
    """Read what was written `with_digest`, without that; an empty object where there is none, or none that is whole."""
    content = read_content(path)
    digest = content.pop("digest", None)
    return content if digest == key_of(content) else {}


def read_content(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none that can be read."""
    try:
        content = read_json(path)
    except (OSError, TikmixError):
        return {}
    return content if isinstance(content, dict) else {}
