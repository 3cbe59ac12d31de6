"""What a fit has summed so far, on disk, so that a killed fit goes on where it was.

state/       sums and the batches done, replaced as a whole about once a minute
bases/       of EK-FAC: what its first pass found, as `Factors` without eigenvalues
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, replacing, write_json

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

    def load(self, stage: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return notes and tensors that were saved in this stage, if any were under this key."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        state = self.folder / "state"
        try:
            notes: dict[str, Any] = read_json(state / _JSON)
            if notes["key"] != self.key or notes["stage"] != stage:
                return None
            return notes, load_file(state / _TENSORS)
        except (OSError, TikmixError, SafetensorError, KeyError, TypeError):
            return None

    @property
    def due(self) -> bool:
        """It is time for the next save."""
        return time.monotonic() - self._saved_at >= self.seconds

    def save(self, stage: str, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace what was saved before."""
        from safetensors.torch import save_file

        with replacing(self.folder / "state") as temporary:
            temporary.mkdir()
            save_file({name: values.contiguous() for name, values in tensors.items()}, temporary / _TENSORS)
            write_json(temporary / _JSON, {**notes, "key": self.key, "stage": stage})
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Delete it all; what others keep in the folder stays."""
        remove(self.folder / "state")
        remove(self.bases)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
