"""What the methods of this room share: a mixture with what it took to find it, and the proxies that some train for it.

A proxy is a small model trained from scratch, whose losses stand for those of the model to be trained. It reads the
run's corpus as the run does, with its optimiser, batch size, context and peak rate; its rate rises over the first tenth
of its steps and falls linearly to zero over all of them. Initial weights come from the run's seed: a proxy of the run's
own size begins where the run began.

Axes: K domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.lm.presets import PRESETS
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.parameters import ModelParameters

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from tikmix_pipeline.corpus.shards import TokenShards

Detail = float | Sequence[str] | Mapping[str, float] | None
"""What a method says of its decision beside the mixture: a number, domains, or a number for each domain."""

_MOVED = 1e-6
_WARMUP = 10
"""One step of a proxy in so many is of the warm-up."""


@dataclass(frozen=True)
class Baseline:
    """A mixture that is decided once, and what was spent on the decision."""

    weights: dict[str, float]
    cost: Cost = field(default_factory=Cost)
    notes: tuple[str, ...] = ()
    """What a reader should know, in sentences."""
    details: Mapping[str, Detail] = field(default_factory=dict)
    """What else the method has to say, by name."""


def within_bounds(bounds: Bounds | None, weights: Mapping[str, float]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Move a mixture inside the bounds, which are of the same domains; return it, and a note if that changed it."""
    if bounds is None:
        return dict(weights), ()
    wanted_K = np.array([weights[domain] for domain in bounds.domains])
    weights_K = bounds.project(wanted_K)
    moved = np.abs(weights_K - wanted_K)
    by_domain = dict(zip(bounds.domains, weights_K.tolist(), strict=True))
    note = (
        f"The bounds changed the mixture by {moved.sum() / 2:.1%} of the tokens, that of "
        f"'{bounds.domains[int(moved.argmax())]}' most."
    )
    return {domain: by_domain[domain] for domain in weights}, (note,) if moved.max() > _MOVED else ()


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
