"""Fitting and using a curvature in one line, for tests."""

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters
from tikmix_pipeline.parameters.measurement import Group

GROUPS: tuple[Group, ...] = get_args(Group)
DAMPED = {"inverse": "damped", "damping": 0.1, "damping_unit": "relative"}
FISHER_KINDS = ("diagonal", "kfac", "ekfac")


def fit(model: nn.Module, batches: Sequence[TokenBatch], kind: str = "kfac", **options) -> Factors:
    return fit_factors(model, batches, kind=kind, **{"fisher": "true", "seed": 3, "groups": GROUPS} | options)


def use(model: nn.Module, factors: Factors, *, horizon: float | None = None, **parameters) -> Curvature:
    """Build a curvature from factors, with a relative λ of 0.1 unless the parameters say otherwise."""
    asked = {"curvature": factors.kind, "fisher": factors.fisher, "groups": list(factors.groups)}
    return build_curvature(
        InfluenceParameters(**asked | DAMPED | parameters),
        model,
        factors=factors,
        optimizer_state={},
        train=TrainParameters(),
        horizon=horizon,
    )


def fit_curvature(model: nn.Module, batches: Sequence[TokenBatch], kind: str = "kfac", **options) -> Curvature:
    return use(model, fit(model, batches, kind, **options))


def precondition(curvature: Curvature, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Apply f(C) to one gradient; in its order, without the parameters that take no part."""
    rows = {name: values[None] for name, values in gradient.items()}
    result = {name: values[0] for block in curvature for name, values in block.precondition(rows).items()}
    return {name: result[name] for name in gradient if name in result}


def block_of(curvature: Curvature, name: str) -> EigenBlock:
    (block,) = [block for block in curvature if name in block.names]
    return block


def dense(block: EigenBlock) -> Tensor:
    """The block as a matrix over the row-major entries of its layout."""
    if block.eigenvalues_oi.ndim < 2:
        return torch.diag(block.eigenvalues_oi)
    vectors = eigenvectors(block)
    return vectors @ torch.diag(block.eigenvalues_oi.flatten()) @ vectors.T


def eigenvectors(block: EigenBlock) -> Tensor:
    """All eigenvectors of a block as columns."""
    rows, columns = block.eigenvalues_oi.shape
    q_g = torch.eye(rows).double() if block.rows_oo is None else block.rows_oo
    q_a = torch.eye(columns).double() if block.columns_ii is None else block.columns_ii
    return torch.kron(q_g.contiguous(), q_a.contiguous())
