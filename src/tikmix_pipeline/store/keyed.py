"""One keyed store: entries of a folder that count only under the key that they were written with.

    <name>             a file or a folder
    <name>.key.json    its key, written last: without it the entry is unfinished
    <key>.json         a small result, which holds its own key

Whatever is kept of work under way, or to be used again, stands in one: resume points, the progress of a fit, the results
of lookahead runs, DoReMi's models. A kill at any moment leaves an old entry, a new one or none, and never one that is
taken for something else.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, replacing, write_json

_NAME_LENGTH = 24


class KeyedStore:
    """The keyed entries of one folder, which is made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, key: str) -> Path | None:
        """Return where an entry stands, if it is complete and was written under this key."""
        path, written = self.folder / name, self._key_path(name)
        if not (path.exists() and written.is_file()):
            return None
        return path if _content(written).get("key") == key else None

    @contextlib.contextmanager
    def replacing(self, name: str, key: str) -> Iterator[Path]:
        """Yield a temporary path to write an entry to; at the end it takes the place of the one before.

        Of two entries under one key either may be found after a kill, of two under different keys the new one or none.
        """
        if self.find(name, key) is None:
            self._key_path(name).unlink(missing_ok=True)
        with replacing(self.folder / name) as temporary:
            yield temporary
        write_json(self._key_path(name), {"key": key})

    def discard(self, name: str) -> None:
        """Remove an entry; the folder goes with its last one."""
        self._key_path(name).unlink(missing_ok=True)
        remove(self.folder / name)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def read(self, key: str) -> dict[str, Any] | None:
        """Return a small result that was written under this key, None where there is none."""
        content = _content(self._result_path(key))
        return content if content.get("key") == key else None

    def write(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a small JSON-able result under a key."""
        write_json(self._result_path(key), {**result, "key": key})

    def _key_path(self, name: str) -> Path:
        return self.folder / f"{name}.key.json"

    def _result_path(self, key: str) -> Path:
        return self.folder / f"{key[:_NAME_LENGTH]}.json"


def key_of(content: Any) -> str:
    """Return the SHA-256 of JSON-able content, as a key."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _content(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none that can be read."""
    try:
        content = read_json(path)
    except (OSError, TikmixError):
        return {}
    return content if isinstance(content, dict) else {}
