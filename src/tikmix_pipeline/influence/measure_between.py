"""Products of the domains' gradients with each other, by one process or by `train.world_size` of them."""

import dataclasses
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.influence.between_domains import DomainProducts, domain_products
from tikmix_pipeline.influence.rank_jobs import (
    CheckpointFolder,
    CurvatureArguments,
    FactorsFolder,
    GradientsFolder,
    curvature_at,
    multiplied,
    save_products,
)
from tikmix_pipeline.influence.standard_error import Floats
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.parameters.measurement import CurvatureParameters
from tikmix_pipeline.parameters.training import LoadParameters, ProductParameters


def multiply_domains_at(
    checkpoint: Checkpoint, gradients: GradientStore, **through: Unpack[CurvatureArguments]
) -> DomainProducts:
    """Multiply the gradients of all domains with each other; arguments and errors are those of `multiply_at`."""
    return multiplied(_multiply_domains, _read, checkpoint, gradients, through)


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
    save_products(save_to, mesh, np.stack([found.linear_KLKL, found.curved_KLKL]), found.cost.to_dict())
    return found


def _read(products_2KLKL: Floats, cost: Any) -> DomainProducts:
    return DomainProducts(products_2KLKL[0], products_2KLKL[1], Cost(**cost))
