"""Products of the domains' gradients with each other, to first and to second order in the curvature:

    D[j, k] = g_jᵀ f(C) g_k,        Q[j, k] = g_jᵀ f(C) C f(C) g_k.

D is the influence of one domain on another's loss. Q is how much less two domains give together than each alone: the
curvature of the loss along the steps −f(C) g that their gradients ask for. Both are products of gradient chunks that a
measurement has kept, without a pass through the model.

A domain's product with itself is taken over unequal chunks alone: a chunk's product with itself holds the square of
its sampling noise, which at a few thousand tokens is larger than what is looked for. What is left of the noise may
make Q indefinite, though no true Q is: its negative part is cut off (`convex_part`).

Cost: per domain chunk one rotation into the eigenbasis, half a preconditioning, and two products of K·L by K·L rows
over all parameters.

Axes: K domains, L chunks of a domain, N = K·L, p scalars of a piece, o rows of a matrix, s some of its eigenvectors.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.products import DOT_SLAB, Room, Rows, bands, room_for
from tikmix_pipeline.influence.standard_error import Counts, Floats, influence_with_error
from tikmix_pipeline.influence.store import GradientStore, MeasuredSets
from tikmix_pipeline.lm.cost_records import Cost


@dataclass(frozen=True)
class DomainProducts:
    """Products of all chunks of all domains with each other."""

    linear_KLKL: Floats
    """gᵀ f(C) g."""
    curved_KLKL: Floats
    """gᵀ f(C) C f(C) g."""
    cost: Cost


def domain_products(
    store: GradientStore, curvature: Curvature, *, memory_megabytes: float, device: torch.device
) -> DomainProducts:
    """Multiply every chunk of every domain of a store with every other.

    Args:
        curvature: C, on `device`; the processes that share its blocks each call this.
        memory_megabytes: bound on the rows in memory and their temporaries, beside the curvature.

    Raises:
        TikmixError: one row of a block does not fit, or the store lacks a parameter.
        ValueError: domains have unequal numbers of chunks.
    """
    domains = Rows.of(store, "domain")
    room = room_for(store, curvature, memory_megabytes)
    count, flops = domains.count, 0.0
    totals = torch.zeros(2, count, count, dtype=torch.float64)
    for block in curvature:
        for piece, eigenvectors in _pieces(block, room, count):
            totals += _products(domains, piece, eigenvectors, room, device)
        flops += block.flops(count) / 2 + 4.0 * count**2 * block.size
    linear, curved = curvature.process_group.all_reduce(totals).numpy()
    shape = len(domains.names), domains.chunks, len(domains.names), domains.chunks
    cost = Cost(flops=sum(curvature.process_group.all_gather_object(flops)))
    return DomainProducts(linear.reshape(shape), curved.reshape(shape), cost)


def _pieces(block: EigenBlock, room: Room, count: int) -> Iterator[tuple[EigenBlock, slice]]:
    """Cut a block so that all rows of a piece fit into the memory, rotated; along its eigenvectors if it mixes rows."""
    most = max(1, room.limit // (room.itemsize * (count + 4)))
    if block.is_divisible:
        yield from ((piece, slice(None)) for piece in block.pieces(most))
        return
    rows = len(block.eigenvalues_oi)
    yield from ((block, band) for band in bands(rows, max(1, most * rows // block.size)))


def _products(domains: Rows, piece: EigenBlock, eigenvectors: slice, room: Room, device: torch.device) -> Tensor:
    """Return (2, N, N) products over the eigenvectors given."""
    some = piece
    if piece.rows_oo is not None and eigenvectors != slice(None):
        eigenvalues_si, rows_os = piece.eigenvalues_oi[eigenvectors], piece.rows_oo[:, eigenvectors]
        some = dataclasses.replace(piece, eigenvalues_oi=eigenvalues_si, rows_oo=rows_os)
    at_once = max(1, room.limit // (4 * room.itemsize * piece.size))
    rotated = [
        some.rotate(domains.read(piece, band, device)).flatten(1)
        for band in bands(domains.count, min(at_once, domains.count))
    ]
    rows_Np = torch.cat(rotated) if len(rotated) > 1 else rotated[0]
    eigenvalues_p = some.eigenvalues_oi.double().flatten()
    linear_p = some.damping_function(some.eigenvalues_oi).flatten()
    weights = torch.stack([linear_p, eigenvalues_p * linear_p.square()]).to(rows_Np.dtype)
    totals = torch.zeros(2, domains.count, domains.count, dtype=torch.float64, device=device)
    slabs = zip(torch.split(rows_Np, DOT_SLAB, 1), torch.split(weights, DOT_SLAB, 1), strict=True)
    for slab_Np, weight in slabs:
        totals += (weight[:, None] * slab_Np) @ slab_Np.T
    return totals.cpu()


def of_domains(products_KLKL: Floats, tokens_KL: Counts) -> tuple[Floats, Floats]:
    """Return products of the domains' means and their standard errors, (K, K), from those of their chunks.

    A domain's product with itself is over unequal chunks alone. Its error is that of a U-statistic: twice that of the
    mean of its chunks' means with all others (Hoeffding 1948); of two chunks there is only one product, which says
    nothing of its error: NaN.

    Args:
        products_KLKL: of chunks, at least two of a domain.
        tokens_KL: loss-carrying tokens of each chunk.
    """
    products_KK, error_KK = influence_with_error(products_KLKL, tokens_KL, tokens_KL)
    shares_KL = tokens_KL / tokens_KL.sum(axis=1, keepdims=True)
    own_KLL = np.einsum("klkm->klm", products_KLKL) * (1 - np.eye(shares_KL.shape[1]))
    # the mean of each chunk's products with all other chunks of its domain
    others_KL = np.einsum("klm,km->kl", own_KLL, shares_KL) / (1 - shares_KL)
    own_K = (shares_KL * (1 - shares_KL) * others_KL).sum(axis=1) / (shares_KL * (1 - shares_KL)).sum(axis=1)
    square_K = (shares_KL**2).sum(axis=1)
    spread_K = (shares_KL**2 * (others_KL - own_K[:, None]) ** 2).sum(axis=1) / (1 - square_K)
    np.fill_diagonal(products_KK, own_K)
    np.fill_diagonal(error_KK, 2 * np.sqrt(spread_K) if shares_KL.shape[1] > 2 else np.nan)
    return products_KK, error_KK


def product_rows(measured: MeasuredSets, products: DomainProducts) -> dict[str, Any]:
    """Return the columns of a table with one row per domain whose `text` gains and domain that is trained on.

    `influence` is D with its `stderr`, `curved` is Q without its negative part, with the error of what was measured.
    """
    domains = measured.sets("domain")
    tokens_KL = np.array([[chunk.loss_tokens for chunk in measured.figures("domain", name)] for name in domains])
    linear_KK, linear_error_KK = of_domains(products.linear_KLKL, tokens_KL)
    curved_KK, curved_error_KK = of_domains(products.curved_KLKL, tokens_KL)
    return {
        "text": np.repeat(domains, len(domains)),
        "domain": np.tile(domains, len(domains)),
        "influence": linear_KK.ravel(),
        "stderr": linear_error_KK.ravel(),
        "curved": convex_part(curved_KK).ravel(),
        "curved_stderr": curved_error_KK.ravel(),
    }


def convex_part(products_KK: Floats) -> Floats:
    """Return the nearest positive semidefinite matrix, in the Frobenius norm; what is not finite stays as it is."""
    if not np.isfinite(products_KK).all():  # whoever decides says so
        return products_KK
    values_K, vectors_KK = np.linalg.eigh((products_KK + products_KK.T) / 2)
    convex_KK: Floats = (vectors_KK * np.maximum(values_K, 0)) @ vectors_KK.T
    return convex_KK
