"""What a fit of the curvature has summed so far, on disk, so that a killed fit goes on where it was."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, write_json
from tikmix_pipeline.influence.tensor_file import TensorFile
from tikmix_pipeline.store.keyed import KeyedEntry, read_whole, with_digest

_PROGRESS = "progress.json"
_SUMS = "sums.safetensors"
_BEGAN_WITH = "began_with.json"


@dataclasses.dataclass
class FitProgress:
    """The folder of one fit, created when needed; its sums go when the fit is done.

    state/       sums and the batches done, replaced as a whole; kept under the fit's key and its pass
    began_with.json  the gradient chunks that were missing when the fit began; stays, for a fit that is lost afterwards
    bases/       of EK-FAC: what its first pass found, as `Factors` without eigenvalues

    The key names checkpoint, text and settings; progress under another key is ignored and overwritten. Saves are at
    least `seconds` apart.
    """

    folder: Path
    key: str
    seconds: float = 60.0
    _saved_at: float = dataclasses.field(default_factory=time.monotonic, init=False, repr=False)

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
            return (read_json(state / _PROGRESS), load_file(state / _SUMS)) if state else None
        except (OSError, TikmixError, SafetensorError):
            return None

    def save(self, pass_name: str, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace what was saved before."""
        with self._state(pass_name).replacing() as temporary:
            temporary.mkdir()
            shapes = {name: (values.dtype, tuple(values.shape)) for name, values in tensors.items()}
            file = TensorFile.lay_out(temporary / _SUMS, shapes, {})
            for name, values in tensors.items():
                file.write(name, values)
            write_json(temporary / _PROGRESS, notes)
        self._saved_at = time.monotonic()

    def remembered(self, names: Sequence[str]) -> list[str]:
        """Return what the fit of this key was told here when it began, which are `names` if it begins now."""
        path = self.folder / _BEGAN_WITH
        content = read_whole(path)
        if content.get("key") != self.key:
            content = {"key": self.key, "names": list(names)}
            write_json(path, with_digest(content))
        found: list[str] = content["names"]
        return found

    def remove(self) -> None:
        """Delete what was summed; what others keep in the folder stays.

        What the fit measured on its way is remembered. Where its result is lost before it is recorded, or damaged
        later, the next fit measures the same chunks: alone it would sum in another order, and differ by rounding.
        """
        if not self.remembered(()):
            remove(self.folder / _BEGAN_WITH)
        remove(self.bases)
        self._state("").discard()

    def _state(self, pass_name: str) -> KeyedEntry:
        return KeyedEntry(self.folder / "state", f"{self.key} {pass_name}")
