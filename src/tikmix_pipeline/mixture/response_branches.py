"""Which mixtures a few branches are trained under, to measure how a checkpoint responds (`optimize.branches`).

The reference, which gains are over; what would be decided without branches; the mixture between the two, which tells
c₁ from r; and mixtures that fill the space: each of them as far as can be from all that were chosen before, in the
distance of the square roots of weights, under which mixtures of few tokens of a domain are told apart.

Axes: N branches, K domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.heldout_branches import HeldoutOfBranches
from tikmix_pipeline.mixture.records import ExpectedGain
from tikmix_pipeline.mixture.response_fit import MeasuredResponse, coordinates, fit_response
from tikmix_pipeline.mixture.simplex import FloatArray, round_to_simplex
from tikmix_pipeline.parameters.measurement import heldout_target

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "reference"
DIRECT = "direct"
_BETWEEN = "between"

FEWEST = 3
_DRAWS = 500
_DECIMALS = 6
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class BranchLosses:
    """What branches of a checkpoint were trained under, and where they ended."""

    ratios: "pd.DataFrame"
    """Their mixtures, in Olmix's columns."""
    losses: "pd.DataFrame"
    """Of those that came through, on the tasks and on held-out text of the domains, likewise."""
    at_checkpoint: Mapping[str, float]
    """Losses of each domain's text and of each task before, in nats per token."""
    bytes_per_token: Mapping[str, float] = field(default_factory=dict)
    """UTF-8 bytes of each text per loss-carrying token, where a guardrail asks for them."""


def branch_mixtures(
    reference_K: FloatArray, direct_K: FloatArray, bounds: Bounds, *, count: int, seed: int
) -> dict[str, FloatArray]:
    """Return at most `count` mixtures by name, all inside the bounds, no two the same.

    Args:
        reference_K: inside the bounds.
        direct_K: what is decided without branches.

    Raises:
        TikmixError: the bounds leave too few mixtures to tell anything by.
    """
    rounded = [round_to_simplex(w_K, _DECIMALS) for w_K in (reference_K, direct_K, (reference_K + direct_K) / 2)]
    chosen = dict(zip((REFERENCE, DIRECT, _BETWEEN), rounded, strict=True))
    if np.abs(rounded[0] - rounded[1]).sum() < _SAME:
        chosen = {REFERENCE: rounded[0]}
    rng = np.random.default_rng(seed)
    draws = [bounds.project(w_K) for w_K in rng.dirichlet(np.full(len(reference_K), 0.5), size=_DRAWS)]
    while len(chosen) < count:
        distance_N = np.array([_nearest(w_K, list(chosen.values())) for w_K in draws])
        if distance_N.max() < _SAME:  # the bounds leave no other
            break
        chosen[f"spread {len(chosen):02d}"] = round_to_simplex(draws[int(distance_N.argmax())], _DECIMALS)
    if len(chosen) < FEWEST:
        raise TikmixError(
            f"The bounds leave {len(chosen)} mixtures that differ, and branches under at least {FEWEST} are needed to "
            "measure the response. Set optimize.branches=0, or give domains room (optimize.bounds, optimize.pinned, "
            "optimize.max_epochs)."
        )
    return chosen


def _nearest(weights_K: FloatArray, chosen: Sequence[FloatArray]) -> float:
    return min(float(np.linalg.norm(np.sqrt(weights_K) - np.sqrt(one_K))) for one_K in chosen)


def measured_response(
    branches: BranchLosses,
    *,
    shares: Mapping[str, float],
    mean_K: FloatArray,
    curved_KK: FloatArray,
    domains: Sequence[str],
    rule: float,
) -> MeasuredResponse:
    """Fit the response to the branches that came through.

    Args:
        shares: what each task has of the mean that is decided by.
        mean_K: the influence of the domains on that mean.
        rule: r without branches.

    Raises:
        TikmixError: the reference's branch is missing, or fewer than two others came through.
    """
    trained = branches.losses.set_index("run")
    if REFERENCE not in trained.index or len(trained) < FEWEST:
        raise TikmixError(
            f"Of the branches of optimize.branches {len(trained)} came through ({', '.join(trained.index)}), and the "
            "reference's and two others are needed. The warnings above say which failed and why. Mend that and run "
            "again, or set optimize.branches=0."
        )
    mixtures = branches.ratios.set_index("run").loc[trained.index, [*domains]]
    loss_N = sum(share * trained[task].to_numpy(dtype=float) for task, share in shares.items())
    gain_N = loss_N[trained.index.get_loc(REFERENCE)] - loss_N
    weights_NK, reference_K = mixtures.to_numpy(dtype=float), mixtures.loc[REFERENCE].to_numpy(dtype=float)
    fitted = fit_response(*coordinates(mean_K, curved_KK, weights_NK, reference_K), gain_N, rule)
    of_text = [heldout_target(domain) for domain in domains]
    heldout = None
    if set(of_text) <= set(trained):
        gain_NK = trained.loc[REFERENCE, of_text].to_numpy(dtype=float) - trained[of_text].to_numpy(dtype=float)
        heldout = HeldoutOfBranches(weights_NK, reference_K, gain_NK.T)
    return MeasuredResponse(fitted, len(trained), dict(branches.at_checkpoint), dict(branches.bytes_per_token), heldout)


def in_nats(
    measured: MeasuredResponse | None,
    mean_K: FloatArray,
    curved_KK: FloatArray,
    weights_K: FloatArray,
    prior_K: FloatArray,
    *,
    level: float,
) -> dict[str, Any]:
    """Return what branches let say of a mixture in nats, as fields of `SecondOrderRecord`; nothing without them."""
    if measured is None:
        return {}
    fitted = measured.fitted
    if not fitted.is_told:
        return {"branches": measured.branches}
    at = coordinates(mean_K, curved_KK, weights_K[None], prior_K)
    nats, half_width = float(fitted.mean_gain(*at)[0]), float(fitted.half_width(*at, level)[0])
    expected = ExpectedGain(nats=nats, half_width=half_width, level=level)
    return {"scale": fitted.scale, "branches": measured.branches, "expected": expected}
