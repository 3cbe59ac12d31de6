"""Proxies: small models trained from scratch, whose losses stand for those of the model to be trained.

They read the run's corpus as the run does, with its optimiser, batch size, context and peak rate; their rate rises over
the first tenth of their steps and falls linearly to zero over all of them. Initial weights come from the run's seed: a
proxy of the run's own size begins where the run began.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.presets import PRESETS
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.parameters import ModelParameters

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from tikmix_pipeline.corpus.shards import TokenShards

_WARMUP = 10
"""One step in so many is of the warm-up."""


def proxy_model(preset: str | None, model: ModelParameters, parameter: str) -> ModelParameters:
    """Return how a proxy of a built-in size is built, by default that of the run; `parameter` is for messages.

    Raises:
        TikmixError: there is no such size, or it is to be that of a checkpoint.
    """
    if preset is None and model.checkpoint is not None:
        raise TikmixError(
            f"{parameter} is null, the size of the model that is trained, but that begins from the checkpoint "
            f"{model.checkpoint}, and a proxy is trained from scratch. Name a built-in size: {', '.join(PRESETS)}."
        )
    chosen = preset or model.preset
    if chosen not in PRESETS:
        raise TikmixError(f"{parameter}: '{chosen}' is not a built-in size; choose one of {', '.join(PRESETS)}.")
    return ModelParameters(preset=chosen, attention=model.attention)


def proxy_schedule(steps: int) -> Schedule:
    """Return the learning rates of a proxy that is trained for so many steps."""
    warmup_steps = -(-steps // _WARMUP)
    whole = Schedule(chunk_steps=steps, total_steps=steps, warmup_steps=warmup_steps, decay_steps=0, final_fraction=0.0)
    return whole.annealed(0, steps)


def save_initial(
    model: ModelParameters, shards: "TokenShards", folder: Path, *, context: int, seed: int
) -> "PretrainedConfig":
    """Write a proxy before its first step to `folder`; return what describes its shape."""
    # here, so that a misspelt size is told without loading torch
    from tikmix_pipeline.lm.checkpoint import save_model
    from tikmix_pipeline.lm.model import build_model

    network = build_model(model, vocabulary_size=shards.vocabulary_size, context=context, seed=seed)
    save_model(network, folder, shards.tokenizer_folder)
    return network.config
