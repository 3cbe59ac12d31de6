"""Products of the domains' gradients with each other, by one process or by `train.world_size` of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_pipeline.distributed.launch import folder_beside, require_done
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.files import read_json, remove, replacing, write_json
from tikmix_pipeline.influence.between_domains import DomainProducts, domain_products
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.rank_jobs import (
    CheckpointFolder,
    FactorsFolder,
    GradientsFolder,
    curvature_at,
    run_on_ranks,
)
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.parameters.measurement import CurvatureParameters
from tikmix_pipeline.parameters.training import LoadParameters, ProductParameters

_PRODUCTS = "products.npy"
_COST = "cost.json"


def multiply_domains_at(
    checkpoint: Checkpoint,
    gradients: GradientStore,
    *,
    model: LoadParameters,
    train: ProductParameters,
    influence: CurvatureParameters,
    horizon: float,
    factors: Factors | None,
) -> DomainProducts:
    """Multiply the gradients of all domains with each other; arguments and errors are those of `multiply_at`."""
    arguments: dict[str, Any] = {"model": model, "train": train, "influence": influence}
    arguments |= {"horizon": horizon, "factors": factors}
    if train.world_size == 1:
        return _multiply_domains(checkpoint, gradients, **arguments)
    folder = folder_beside(gradients.folder)
    remove(folder)
    arguments |= {"checkpoint": checkpoint, "gradients": gradients, "save_to": folder}
    try:
        run_on_ranks(_multiply_domains, arguments, folder)
        require_done((folder / _COST).is_file(), train)
        linear_KLKL, curved_KLKL = np.load(folder / _PRODUCTS, allow_pickle=False)
        return DomainProducts(linear_KLKL, curved_KLKL, Cost(**read_json(folder / _COST)))
    finally:
        remove(folder)


def _multiply_domains(
    checkpoint: CheckpointFolder,
    gradients: GradientsFolder,
    *,
    model: LoadParameters,
    train: ProductParameters,
    influence: CurvatureParameters,
    horizon: float,
    factors: FactorsFolder,
    save_to: Path | None = None,
    mesh: Mesh = SINGLE_MESH,
) -> DomainProducts:
    curvature = curvature_at(checkpoint, model, train, influence, factors, horizon, mesh)
    device, memory = mesh.device_for(influence.device), influence.memory_megabytes
    found = domain_products(gradients, curvature, memory_megabytes=memory, device=device)
    # asked of every rank, since each has blocks of its own
    found = dataclasses.replace(found, cost=found.cost + curvature.cost)
    if save_to is not None and mesh.world.is_rank_zero:
        with replacing(save_to / _PRODUCTS) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.stack([found.linear_KLKL, found.curved_KLKL]))
        write_json(save_to / _COST, found.cost.to_dict())
    return found
