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

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tokenizer import tokenizer_digest
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, replacing, write_json
from tikmix_pipeline.lm.known_ids import require_known_ids
from tikmix_pipeline.lm.model import build_model, load_model, outline_model, parameter_count, read_config
from tikmix_pipeline.lm.trainer import StepRecord, TrainingState
from tikmix_pipeline.lm.weights import checkpoint_config
from tikmix_pipeline.parameters.training import ConfigParameters, LoadParameters, ModelParameters

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_STATE_JSON = "training_state.json"
_STATE_TENSORS = "training_state.safetensors"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk; nothing is read before it is asked for."""

    folder: Path

    def model(self, parameters: LoadParameters) -> "PreTrainedModel":
        """Load the model in float32 on the CPU."""
        return load_model(self.folder, parameters)

    def outline(self, parameters: LoadParameters) -> "PreTrainedModel":
        """Return the model without its weights: names and shapes, on the `meta` device."""
        return outline_model(self.folder, parameters)

    def config(self, parameters: ConfigParameters) -> "PretrainedConfig":
        """Read the model's configuration."""
        return read_config(self.folder, parameters)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Load the optimiser's state as tensors named `<parameter>/<entry>`; empty for a checkpoint not trained here.

        A file that is truncated, or missing beside the rest of the training state, raises a TikmixError.
        """
        if not (self.folder / _STATE_JSON).is_file():
            return {}
        path = self.folder / _STATE_TENSORS
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise TikmixError(f"{path} is damaged ({error}). Delete {self.folder} and run its round again.") from error
        return tensors

    def training_state(self) -> Mapping[str, Any]:
        """Read step, stream state and records, or raise a TikmixError; empty for a checkpoint not trained here."""
        path = self.folder / _STATE_JSON
        return read_json(path) if path.is_file() else {}

    def require_tokenizer(self, digest: str) -> None:
        """Raise a TikmixError if the checkpoint has another tokenizer than the corpus, or none to compare."""
        recorded = tokenizer_digest(self.folder)
        if recorded is None:
            raise TikmixError(
                f"{self.folder} holds no tokenizer.json, so nothing shows that it fits the corpus. Save its tokenizer "
                "there (AutoTokenizer.save_pretrained)."
            )
        if recorded != digest:
            raise TikmixError(
                f"The checkpoint {self.folder} has another tokenizer ({recorded[:12]}) than the corpus "
                f"({digest[:12]}). Tokenise the corpus with it: corpus.tokenizer.path={self.folder}."
            )

    @property
    def architecture(self) -> str:
        """The class that `config.json` names."""
        return str((checkpoint_config(self.folder).get("architectures") or ["unknown"])[0])

    def parameter_count(self, parameters: LoadParameters) -> int:
        """Count the scalars of the model as it is loaded, tied ones once, without loading it."""
        return parameter_count(self.outline(parameters))

    def require_known_ids(self, vocabulary_size: int) -> None:
        """Raise a TikmixError if the checkpoint's configuration has fewer token ids than a tokenizer can make.

        Which of them the text of a corpus makes, `known_ids.require_known_ids` looks up.
        """
        known = self.known_ids()
        if known is not None and known < vocabulary_size:
            raise TikmixError(
                f"The tokenizer has {vocabulary_size} token ids, but the model in {self.folder} knows {known}: they do "
                "not belong together. Save the model's own tokenizer there (AutoTokenizer.save_pretrained), or resize "
                "its embeddings (resize_token_embeddings)."
            )

    def known_ids(self) -> int | None:
        """Return how many token ids the checkpoint's configuration has, if it tells."""
        config = checkpoint_config(self.folder)
        text = config.get("text_config")
        known = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, Mapping) else None)
        return known if isinstance(known, int) else None

    def require_context(self, context: int) -> None:
        """Raise a TikmixError if the checkpoint's configuration allows fewer tokens than `train.context`."""
        config = checkpoint_config(self.folder)
        longest = config.get("max_position_embeddings") or config.get("n_positions")
        if isinstance(longest, int) and longest < context:
            raise TikmixError(
                f"train.context is {context}, but the model in {self.folder} takes at most {longest} tokens. Lower it."
            )

    @property
    def step(self) -> int:
        """Optimiser steps done; 0 for a checkpoint that was not trained here."""
        return int(self.training_state().get("step", 0))

    def tokens_read(self) -> dict[str, int]:
        """Training tokens read of each domain, repetitions counted; empty for a checkpoint not trained here."""
        stream = self.training_state().get("stream", {})
        return {domain: windows * stream["context"] for domain, windows in stream.get("consumed", {}).items()}

    def restore(self, state: TrainingState, mesh: Mesh = SINGLE_MESH) -> None:
        """Load optimiser, stream, step and records into `state`, whose model came from this checkpoint.

        A saved state that is damaged, or of another optimiser or stream, raises a TikmixError.
        """
        saved = self.training_state()
        if not saved:
            return
        state.optimizer.load_state_tensors(self.optimizer_tensors(), mesh.distribute)
        restore_place(state, saved)


def place_of(state: TrainingState) -> dict[str, Any]:
    """Return where a training is in its text and what its steps did, as JSON values."""
    records = [dataclasses.asdict(record) for record in state.records]
    return {"step": state.step, "stream": state.stream.state_dict(), "records": records}


def restore_place(state: TrainingState, saved: Mapping[str, Any]) -> None:
    """Take up what `place_of` returned; raise a TikmixError if it is of another stream."""
    state.stream.load_state_dict(saved["stream"])
    state.step = saved["step"]
    state.records = [StepRecord(**record) for record in saved["records"]]


def initial_model(
    shards: TokenShards, parameters: ModelParameters, *, context: int, seed: int, root: Path
) -> "PreTrainedModel":
    """Build the model that a run begins with, or load the user's, whose path is relative to `root`.

    Raises:
        TikmixError: a domain is shorter than the context, there is no such size, or the checkpoint cannot be read, has
            another tokenizer than the corpus or fewer ids than its text uses.
    """
    shards.require_windows(context)
    if parameters.checkpoint is None:
        return build_model(parameters, vocabulary_size=shards.vocabulary_size, context=context, seed=seed)
    start = Checkpoint(root / parameters.checkpoint)
    start.require_tokenizer(shards.tokenizer_digest)
    model = start.model(parameters)
    require_known_ids(shards, len(model.get_input_embeddings().weight), start.folder)
    return model


def save_model(model: "PreTrainedModel", folder: Path, tokenizer: Path) -> Checkpoint:
    """Write a model that is not trained yet, with its tokenizer's files."""
    with replacing(folder) as temporary:
        _write_model(model, temporary, tokenizer)
    return Checkpoint(folder)


def adopt(checkpoint: Checkpoint, folder: Path, tokenizer: Path) -> Checkpoint:
    """Make a checkpoint of links to another's model files, which may be large, beside copies of a tokenizer's files.

    The training state of the other is left behind: its place in a stream says nothing about another corpus.
    """
    tokenizer_files = {file.name for file in tokenizer.iterdir()}
    with replacing(folder) as temporary:
        temporary.mkdir(parents=True)
        for file in sorted(checkpoint.folder.iterdir()):
            if file.is_file() and file.name not in {*tokenizer_files, _STATE_JSON, _STATE_TENSORS}:
                (temporary / file.name).symlink_to(file.resolve())
        _copy_files(tokenizer, temporary)
    return Checkpoint(folder)


def save_checkpoint(state: TrainingState, folder: Path, tokenizer: Path) -> Checkpoint:
    """Write model, tokenizer files and resume state to `folder`, whole or not at all."""
    with replacing(folder) as temporary:
        _write_model(state.model, temporary, tokenizer)
        tensors = {name: value.contiguous() for name, value in state.optimizer.state_tensors().items()}
        save_file(tensors, temporary / _STATE_TENSORS)
        write_json(temporary / _STATE_JSON, place_of(state))
    return Checkpoint(folder)


def _write_model(model: "PreTrainedModel", folder: Path, tokenizer: Path) -> None:
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    _copy_files(tokenizer, folder)


def _copy_files(source: Path, folder: Path) -> None:
    for file in source.iterdir():
        shutil.copy2(file, folder / file.name)
