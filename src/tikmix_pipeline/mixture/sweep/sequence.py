"""A sequential design at the end of a round: from D's decision and what was measured to tables of branches.

Axes: T targets, K domains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from tikmix_pipeline.mixture.objective import Targets
from tikmix_pipeline.mixture.records import BoxRecord, DecisionRecord, SweepDesign, TokenBudget
from tikmix_pipeline.mixture.simplex import FloatArray, by_name, check_mixture
from tikmix_pipeline.mixture.sweep.guard import search_guard
from tikmix_pipeline.mixture.sweep.response_mean import ResponseMean
from tikmix_pipeline.mixture.sweep.responses import run_table
from tikmix_pipeline.mixture.sweep.sequential import design_sequentially
from tikmix_pipeline.parameters.decision import AveragingParameters, FirstOrderParameters
from tikmix_pipeline.parameters.sweep import SequentialParameters

if TYPE_CHECKING:
    import pandas as pd

Cost = TypeVar("Cost")


@dataclass(frozen=True, eq=False)
class TrainedSequence(Generic[Cost]):
    """What a sequence of branches leaves."""

    ratios: "pd.DataFrame"
    """Their mixtures, in Olmix's columns."""
    losses: "pd.DataFrame"
    """Of those that came through, likewise."""
    design: SweepDesign
    steps: "pd.DataFrame"
    """Why each was trained, what was expected and what came."""
    cost: Cost
    """Of all branches."""
    stopped_for: str


def run_sequence(
    train: "Callable[[pd.DataFrame], tuple[pd.DataFrame, Cost]]",
    direct: DecisionRecord,
    budget: TokenBudget,
    influences: "Sequence[pd.DataFrame]",
    products: "Sequence[pd.DataFrame]",
    optimize: FirstOrderParameters,
    sweep: SequentialParameters,
    averaging: AveragingParameters,
    *,
    evidence: "pd.DataFrame | None" = None,
    seed: int,
) -> TrainedSequence[Cost]:
    """Train branches where most is to be expected of them.

    Args:
        train: from mixtures, in Olmix's columns, to the losses of those that came through, and what all of them took;
            trains only what is not trained yet.
        direct: D's decision, of second order.
        budget: what bounds mixtures.
        influences, products: of the rounds so far, oldest first.
        optimize: bounds, and what the targets weigh.
        evidence: branches from elsewhere (`evidence.evidence_table`).

    Raises:
        TikmixError: as `design_sequentially`, or as `Evidence.of`.
    """
    domains, bounds = budget.domains, budget.step_bounds(optimize)
    latest: dict[str, tuple[pd.DataFrame, Cost]] = {}

    def measure(mixtures: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        latest["all"] = train(run_table({run: w_K.tolist() for run, w_K in mixtures.items()}, domains))
        return _by_run(latest["all"][0])

    tasks = list(influences[-1]["task"].unique())
    mean = ResponseMean.of(direct, influences, products, domains, tasks, averaging, evidence)
    counts_T = np.abs(mean.influence_TK).max(axis=1) > 0
    share_T = Targets.of(tasks, counts_T, optimize).task_shares()
    design = design_sequentially(
        measure,
        mean,
        direct_K=bounds.project(check_mixture(direct.weights, domains, "D's mixture")),
        reference_K=bounds.project(check_mixture(direct.reference or {}, domains, "the reference")),
        bounds=bounds,
        guard=search_guard(direct, influences, products, domains, averaging),
        share_T=share_T,
        branches=sweep.branches,
        batch=sweep.batch,
        seed=seed,
    )
    losses, cost = latest["all"]
    low, high = (by_name(domains, side_K) for side_K in bounds.box())
    return TrainedSequence(
        ratios=run_table({run: w_K.tolist() for run, w_K in design.mixtures.items()}, domains),
        losses=losses,
        design=SweepDesign(box=BoxRecord(low=low, high=high), acceptance=1.0, notes=(design.stopped_for,)),
        steps=design.table(_by_run(losses), share_T),
        cost=cost,
        stopped_for=design.stopped_for,
    )


def _by_run(losses: "pd.DataFrame") -> dict[str, FloatArray]:
    table = losses.set_index("run")
    return {str(run): row.to_numpy(dtype=np.float64) for run, row in table.iterrows()}
