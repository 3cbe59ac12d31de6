"""What the ranks of a measurement are handed in place of objects, and what each of them does with it first."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.job import Job
from tikmix_pipeline.distributed.launch import run_ranks
from tikmix_pipeline.distributed.mesh import Mesh
from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.parameters.measurement import CurvatureParameters
from tikmix_pipeline.parameters.training import LoadParameters, ProductParameters

CheckpointFolder = Annotated[Checkpoint, PlainValidator(lambda folder: Checkpoint(Path(folder)))]
ShardsFolder = Annotated[TokenShards, PlainValidator(lambda folder: TokenShards.open(Path(folder)))]
GradientsFolder = Annotated[GradientStore, PlainValidator(lambda folder: GradientStore(Path(folder)))]
FactorsFolder = Annotated[Factors | None, PlainValidator(lambda folder: Factors.load(Path(folder)) if folder else None)]


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
