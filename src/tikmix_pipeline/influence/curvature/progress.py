"""What a fit has summed so far, on disk, so that a killed fit goes on where it was.

state/       sums and the batches done, replaced as a whole about once a minute; kept under the fit's key and its pass
bases/       of EK-FAC: what its first pass found, as `Factors` without eigenvalues
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, write_json
from tikmix_pipeline.store.keyed import KeyedEntry

_JSON = "progress.json"
_TENSORS = "sums.safetensors"


@dataclass
class FitProgress:
    """Where the progress of a fit lies, and what it is the progress of.

    Attributes:
        folder: for this fit alone; created when needed, and emptied when the fit is done.
        key: names checkpoint, text and settings; progress under another key is ignored and overwritten.
        seconds: least time between two saves.
    """

    folder: Path
    key: str
    seconds: float = 60.0
    _saved_at: float = field(default_factory=time.monotonic, init=False, repr=False)

    @property
    def bases(self) -> Path:
        """Folder of what the first of two passes found."""
        return self.folder / "bases"

    @property
    def due(self) -> bool:
        """Whether it is time for the next save."""
        return time.monotonic() - self._saved_at >= self.seconds

    def load(self, pass_name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return notes and tensors that were saved in this pass under this key; None if there are none to be read."""
        state = self._state(pass_name).find()
        try:
            return (read_json(state / _JSON), load_file(state / _TENSORS)) if state else None
        except (OSError, TikmixError, SafetensorError):
            return None

    def save(self, pass_name: str, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace what was saved before."""
        with self._state(pass_name).replacing() as temporary:
            temporary.mkdir()
            save_file({name: values.contiguous() for name, values in tensors.items()}, temporary / _TENSORS)
            write_json(temporary / _JSON, notes)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Delete it all; what others keep in the folder stays."""
        remove(self.bases)
        self._state("").discard()

    def _state(self, pass_name: str) -> KeyedEntry:
        return KeyedEntry(self.folder / "state", f"{self.key} {pass_name}")
