"""The stages of a measurement by several processes, `train.world_size` of them, in place of this one."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.paths import WorkFolder
from tikmix_pipeline.files import remove, replacing
from tikmix_pipeline.parameters import InfluenceParameters, ModelParameters, TrainParameters
from tikmix_pipeline.pipelines.measuring import measuring_code
from tikmix_pipeline.pipelines.types import Checkpoint, Factors, GradientStore, TokenShards


def train_branch(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    mixture: Mapping[str, float],
    *,
    steps: int,
    model: ModelParameters,
    train: TrainParameters,
    schedule: Any,
    seed: int,
    description: str,
) -> Any:
    """Train a branch and return its state, on the CPU of this process; as `lm.branch.train_branch`."""
    from tikmix_pipeline.lm.chunk import train_chunk
    from tikmix_pipeline.lm.on_ranks import Training, train_on_ranks

    folder = _beside(checkpoint.folder)
    schedule = dataclasses.replace(schedule, chunk_steps=steps)  # a branch is a chunk of so many steps
    job = Training(checkpoint.folder, corpus.folder, mixture, model, train, schedule, seed, description)
    train_on_ranks(job, folder, None, lambda write: write(folder))
    here = train.model_copy(update={"device": "cpu"})
    state = train_chunk(
        checkpoint, corpus, mixture, model=model, train=here, schedule=schedule, seed=seed, resume=folder
    )
    remove(folder)
    return state


def fit(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    seed: int,
    work: WorkFolder,
) -> Callable[[Path], Any]:
    """Fit the factors; what is returned moves them to where they belong."""
    from tikmix_pipeline.influence.on_ranks import fit_on_ranks

    job = _job("factors", checkpoint, model, train, influence, shards=corpus.folder, seed=seed)
    found = fit_on_ranks(job, work.begin())

    def write(folder: Path) -> None:
        with replacing(folder) as temporary:
            shutil.move(found, temporary)
        remove(work.folder)

    return write


def collect(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    seed: int,
    folder: Path,
    *,
    horizon: float = 0.0,
    factors: Factors | None = None,
    growth: Mapping[str, Any] | None = None,
) -> None:
    """Collect the gradients into a folder, by `influence.tokens` or, with what a growth needs, until they suffice."""
    from tikmix_pipeline.influence.on_ranks import collect_on_ranks

    text = {"shards": corpus.folder, "seed": seed, "code": measuring_code(model, influence)}
    growing = {"horizon": horizon, "growth": growth}
    job = _job("gradients", checkpoint, model, train, influence, factors, store=folder, **text, **growing)
    collect_on_ranks(job, _beside(folder))


def multiply(
    checkpoint: Checkpoint,
    gradients: GradientStore,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    horizon: float,
    factors: Factors | None,
) -> tuple[Any, Any, Any]:
    """Return the products of all parts, the report of the curvature they went through, and the cost of both."""
    from tikmix_pipeline.influence.on_ranks import multiply_on_ranks

    job = _job("products", checkpoint, model, train, influence, factors, store=gradients.folder, horizon=horizon)
    return multiply_on_ranks(job, _beside(gradients.folder))


def _job(
    stage: Any,
    checkpoint: Checkpoint,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    factors: Factors | None = None,
    **rest: Any,
) -> Any:
    """Say what the ranks are to do, with folders in place of what they hold."""
    from tikmix_pipeline.influence.on_ranks import Measuring

    return Measuring(
        stage=stage,
        checkpoint=checkpoint.folder,
        model=model,
        train=train,
        influence=influence,
        factors=factors.folder if factors is not None else None,
        **rest,
    )


def _beside(folder: Path) -> Path:
    """Return where the ranks work, which every machine must see and which goes when they are done."""
    return folder.with_name(f"{folder.name}.ranks")
