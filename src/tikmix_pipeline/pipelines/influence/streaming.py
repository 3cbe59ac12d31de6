"""Whether the gradients of a round are kept on disk or streamed (`influence.gradients`)."""

import contextlib
import shutil
from dataclasses import dataclass
from math import prod

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import existing_parent
from tikmix_pipeline.lm.presets import find_preset
from tikmix_pipeline.lm.weights import saved_shapes
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.run import Run

_MOST_KEPT_BYTES = 10e9
_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class GradientPlan:
    """What becomes of the gradients, and why, in words."""

    is_streamed: bool
    reason: str


def plan_gradients(run: Run, number: int) -> GradientPlan:
    """Return what `influence.gradients` makes of the gradients of a round.

    `auto` keeps what an earlier run has kept.

    Raises:
        TikmixError: streaming is asked for where it cannot be done.
    """
    influence, train = run.parameters.influence, run.parameters.train
    hindrance = None
    if influence.tokens == "auto":
        hindrance = "influence.tokens=auto asks the gradients again and again what they imply"
    elif run.parameters.optimize.method == "response":
        hindrance = "optimize.method=response multiplies the gradients of the domains with each other"
    elif train.world_size > 1:
        hindrance = f"train.world_size={train.world_size}: only one process can stream"
    if influence.gradients == "stream" and hindrance:
        raise TikmixError(f"influence.gradients=stream: {hindrance}. Set influence.gradients=keep, or change that.")
    if influence.gradients != "auto":
        return GradientPlan(influence.gradients == "stream", "as influence.gradients says")
    folder = run.path(of_round(number, "gradients"))
    if hindrance or (folder / "gradients.json").is_file():
        return GradientPlan(False, hindrance or "they are there already")
    needed, free = _bytes_needed(run), shutil.disk_usage(existing_parent(folder)).free
    reason = f"kept they would take {needed / 1e9:.1f} GB, and {free / 1e9:.0f} GB are free (influence.gradients=auto)"
    return GradientPlan(needed > min(_MOST_KEPT_BYTES, free / 2), reason)


def _bytes_needed(run: Run) -> float:
    influence, corpus = run.parameters.influence, run.parameters.corpus
    tasks = len(influence.deciding(list(corpus.tasks))) if influence.targets != "heldout" else 0
    sets = len(corpus.domains) + tasks + (len(corpus.domains) if influence.targets != "tasks" else 0)
    return float(sets * influence.micro_batches * _parameter_count(run) * _BYTES[influence.kept_precision])


def _parameter_count(run: Run) -> int:
    """Count from the headers of the checkpoint's files, or from the built-in size."""
    model = run.parameters.model
    if model.checkpoint is None:
        return find_preset(model.preset).parameter_count(run.parameters.corpus.tokenizer.vocabulary_size)
    with contextlib.suppress(TikmixError):  # what is wrong with it, the checks of a run tell
        return sum(map(prod, saved_shapes(run.root / model.checkpoint).values()))
    return 0
