"""Checkpoints: a Hugging Face folder that loads anywhere, with the resume state beside it.

    config.json, model.safetensors, tokenizer files      what others read
    training_state.safetensors, training_state.json      optimiser moments by parameter name, step, stream, records

No file is a pickle. A checkpoint without the training state (a user's own) starts a run afresh.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, replacing, write_json
from tikmix_pipeline.lm.model import load_model
from tikmix_pipeline.lm.trainer import StepRecord, TrainingState
from tikmix_pipeline.parameters import ModelParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_STATE_JSON = "training_state.json"
_STATE_TENSORS = "training_state.safetensors"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk; nothing is read before it is asked for."""

    folder: Path

    def model(self, parameters: ModelParameters) -> "PreTrainedModel":
        """Load the model in float32 on the CPU."""
        return load_model(self.folder, parameters)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Load the optimiser's state as tensors named `<parameter>/<entry>`; empty where there is none.

        Raises:
            TikmixError: the file is truncated.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / _STATE_TENSORS
        if not path.is_file():
            return {}
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except SafetensorError as error:
            raise TikmixError(f"{path} is damaged ({error}). Delete {self.folder} and run its round again.") from error
        return tensors

    def training_state(self) -> Mapping[str, Any]:
        """Read step, stream state and records; empty where there is none."""
        path = self.folder / _STATE_JSON
        return read_json(path) if path.is_file() else {}

    def require_tokenizer(self, digest: str) -> None:
        """Refuse a checkpoint that was trained on another tokenizer.

        Raises:
            TikmixError: the digests differ.
        """
        recorded = self.training_state().get("tokenizer_digest", digest)
        if recorded != digest:
            raise TikmixError(
                f"The checkpoint {self.folder} was trained with another tokenizer ({recorded[:12]}) than the corpus "
                f"({digest[:12]}). Rebuild the corpus with that tokenizer (corpus.tokenizer.path), or train from the "
                "start under another experiment name."
            )

    def restore(self, state: TrainingState) -> None:
        """Load optimiser, stream, step and records into `state`, whose model came from this checkpoint."""
        saved = self.training_state()
        if not saved:
            return
        state.optimizer.load_state_tensors(self.optimizer_tensors())
        state.stream.load_state_dict(saved["stream"])
        state.step = saved["step"]
        state.records = [StepRecord(**record) for record in saved["records"]]


def save_checkpoint(state: TrainingState, folder: Path, *, tokenizer: Path, tokenizer_digest: str) -> Checkpoint:
    """Write model, tokenizer and resume state to `folder`, whole or not at all."""
    from safetensors.torch import save_file

    with replacing(folder) as temporary:
        temporary.mkdir(parents=True)
        state.model.save_pretrained(temporary)  # type: ignore[operator]
        for file in tokenizer.iterdir():
            shutil.copy2(file, temporary / file.name)
        tensors = {name: value.contiguous() for name, value in state.optimizer.state_tensors().items()}
        save_file(tensors, temporary / _STATE_TENSORS)
        write_json(
            temporary / _STATE_JSON,
            {
                "step": state.step,
                "stream": state.stream.state_dict(),
                "records": [dataclasses.asdict(record) for record in state.records],
                "tokenizer_digest": tokenizer_digest,
            },
        )
    return Checkpoint(folder)
