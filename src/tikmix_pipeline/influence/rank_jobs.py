"""What the ranks of a measurement are handed in place of objects, what each of them does with it first, and how the
products of gradients come back from them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

import numpy as np
from pydantic import PlainValidator

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.job import Job
from tikmix_pipeline.distributed.launch import folder_beside, require_done, run_ranks
from tikmix_pipeline.distributed.mesh import Mesh
from tikmix_pipeline.files import read_json, remove, replacing, write_json
from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.standard_error import Floats
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.parameters.measurement import CurvatureParameters
from tikmix_pipeline.parameters.training import LoadParameters, ProductParameters

CheckpointFolder = Annotated[Checkpoint, PlainValidator(lambda folder: Checkpoint(Path(folder)))]
ShardsFolder = Annotated[TokenShards, PlainValidator(lambda folder: TokenShards.open(Path(folder)))]
GradientsFolder = Annotated[GradientStore, PlainValidator(lambda folder: GradientStore(Path(folder)))]
FactorsFolder = Annotated[Factors | None, PlainValidator(lambda folder: Factors.load(Path(folder)) if folder else None)]

_PRODUCTS = "products.npy"
_ABOUT = "products.json"

_Found = TypeVar("_Found")


class CurvatureArguments(TypedDict):
    """What the curvature is made of that gradients are multiplied through."""

    model: LoadParameters
    """How the checkpoint is loaded, of which nothing but shapes is read."""
    train: ProductParameters
    """β₂ and ε of its optimiser, and how many processes work."""
    influence: CurvatureParameters
    horizon: float
    """Sum of the learning rates of the coming chunk."""
    factors: Factors | None
    """Where the curvature has any; on disk, if ranks work."""


def curvature_at(
    checkpoint: Checkpoint,
    model: LoadParameters,
    train: ProductParameters,
    influence: CurvatureParameters,
    factors: Factors | None,
    horizon: float,
    mesh: Mesh,
) -> Curvature:
    """Build this process's blocks of the curvature at a checkpoint; errors as `build_curvature`."""
    return build_curvature(
        influence,
        checkpoint.outline(model),
        factors=factors,
        optimizer_state=checkpoint.optimizer_tensors() if influence.needs_optimizer else {},
        train=train,
        horizon=horizon,
        device=mesh.device_for(influence.device),
        process_group=mesh.world,
    )


def run_on_ranks(entry: Callable[..., object], arguments: dict[str, Any], folder: Path) -> None:
    """Let `train.world_size` ranks, on `influence.device`, call a function with these arguments and their mesh.

    Raises:
        TikmixError: as `run_ranks`.
    """
    processes = arguments["train"].model_copy(update={"device": arguments["influence"].device})
    run_ranks(Job(entry, arguments, processes), folder)


def multiplied(
    entry: Callable[..., _Found],
    read: Callable[[Floats, Any], _Found],
    checkpoint: Checkpoint,
    gradients: GradientStore,
    through: CurvatureArguments,
) -> _Found:
    """Return what `entry` makes of gradients, whether this process calls it or ranks do.

    Of ranks the first leaves its result by `save_products` in the folder `save_to`, and `read` makes of that, which is
    numbers and plain values, what `entry` returned.

    Raises:
        TikmixError: as `entry` or `run_ranks`.
    """
    train = through["train"]
    if train.world_size == 1:
        return entry(checkpoint, gradients, **through)
    folder = folder_beside(gradients.folder)
    remove(folder)
    try:
        run_on_ranks(entry, {**through, "checkpoint": checkpoint, "gradients": gradients, "save_to": folder}, folder)
        require_done((folder / _ABOUT).is_file(), train)
        return read(np.load(folder / _PRODUCTS, allow_pickle=False), read_json(folder / _ABOUT))
    finally:
        remove(folder)


def save_products(folder: Path | None, mesh: Mesh, products: Floats, about: Any) -> None:
    """Leave a result for `multiplied` to read, `about` being JSON-able: rank 0 does, and nobody without a folder."""
    if folder is None or not mesh.world.is_rank_zero:
        return
    with replacing(folder / _PRODUCTS) as temporary, temporary.open("wb") as stream:
        np.save(stream, products)
    write_json(folder / _ABOUT, about)
