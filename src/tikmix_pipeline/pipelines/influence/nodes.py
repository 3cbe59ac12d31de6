"""Nodes of the `influence` pipeline: balance, factors of the curvature, gradients, and what these make together.

A checkpoint is in balance with the mixture that it was trained under: wherever the loss is steep, the gradients of the
domains, weighed by that mixture, cancel out. So a domain that was just read a lot has next to no gradient left there,
and seems to help little, though more of it would go on helping. What is measured a few steps after the checkpoint, on
the prior, compares domains on an equal footing in every round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.direct import implied_mixture
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.base import View, unrecorded
from tikmix_pipeline.parameters.decision import FirstOrderParameters
from tikmix_pipeline.parameters.measurement import (
    CurvatureParameters,
    FactorParameters,
    GradientParameters,
    GrowthParameters,
    MatrixParameters,
    StreamedParameters,
)
from tikmix_pipeline.parameters.training import (
    GrowingParameters,
    LoadParameters,
    MeasuredParameters,
    ProductParameters,
    RestoreParameters,
    StepParameters,
    StreamedTraining,
)
from tikmix_pipeline.pipelines.views import TitledView, gradient_key

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.influence.curvature.factors import Factors
    from tikmix_pipeline.influence.rank_jobs import CurvatureArguments
    from tikmix_pipeline.influence.records import CurvatureReport
    from tikmix_pipeline.influence.report import Measurement, SpreadRecord
    from tikmix_pipeline.influence.standard_error import Floats
    from tikmix_pipeline.influence.store import GradientStore, MeasuredSets
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.cost_records import Cost

_LOG = logging.getLogger(__name__)


class RebalanceView(View):
    """What the steps on the prior depend on."""

    model: LoadParameters
    train: StepParameters
    steps: int
    schedule: Schedule
    seed: int


class FactorView(View):
    """What the factors of the curvature depend on, and which gradients are measured on the way, if any."""

    model: LoadParameters
    train: RestoreParameters
    influence: FactorParameters
    seed: int
    gradients: GradientParameters | None = unrecorded()


class GradientView(View):
    """What the gradients of a fixed amount of text depend on."""

    model: LoadParameters
    train: RestoreParameters
    influence: GradientParameters
    seed: int
    turn: int


class GrowthView(View):
    """What gradients depend on that are collected until the mixture that they imply is stable."""

    model: LoadParameters
    train: GrowingParameters
    influence: GrowthParameters
    optimize: FirstOrderParameters
    horizon: float
    seed: int
    turn: int


class StreamView(View):
    """What the influence matrix depends on where no gradient is kept, and why none is."""

    model: LoadParameters
    train: StreamedTraining
    influence: StreamedParameters
    horizon: float
    rebalancing_steps: int
    seed: int
    turn: int
    reason: str = unrecorded()


class InfluenceView(View):
    """What the influence matrix depends on besides the gradients; the lengths tell what rebalancing has cost."""

    model: LoadParameters
    train: MeasuredParameters
    influence: MatrixParameters
    horizon: float
    rebalancing_steps: int


class ProductsView(View):
    """What the products of the domains' gradients with each other depend on besides the gradients."""

    model: LoadParameters
    train: ProductParameters
    influence: CurvatureParameters
    horizon: float


def rebalance(
    view: RebalanceView, checkpoint: Checkpoint, mixture: MixtureRecord, prior: MixtureRecord, corpus: TokenShards
) -> Callable[[Path], Any]:
    """Train on the prior for `influence.rebalance_steps`; the run itself goes on from the checkpoint as it was."""
    from tikmix_pipeline.lm.branch_pool import train_branch
    from tikmix_pipeline.lm.checkpoint import save_checkpoint

    state = train_branch(
        checkpoint,
        corpus,
        prior.weights,
        steps=view.steps,
        model=view.model,
        train=view.train,
        schedule=view.schedule,
        seed=view.seed,
        description="rebalancing",
    )
    return partial(save_checkpoint, state, tokenizer=corpus.tokenizer_folder)


def fit_factors(
    view: FactorView,
    checkpoint: Checkpoint,
    corpus: TokenShards,
    work: WorkFolder,
    *beside: MixtureRecord | WorkFolder,
) -> Callable[[Path], Any]:
    """Fit the second moments that the curvature is made of; go on where a killed fit stood.

    What is `beside`, where it is wanted, is the mixture in proportion to which the fit is, and the folder of gradients:
    those of the domains that are missing are measured on the way, so that their text passes once.
    """
    from tikmix_pipeline.influence.curvature.fit_progress import FitProgress
    from tikmix_pipeline.influence.measure import DomainGradients, fit_factors_at

    mixtures = [one.weights for one in beside if isinstance(one, MixtureRecord)]
    folders = [one for one in beside if not isinstance(one, MixtureRecord)]
    domains = None
    if folders and view.gradients is not None:
        code = gradient_key(view.model, view.gradients)
        domains = DomainGradients(view.gradients, folders[0].folder, folders[0].begin, code)
    return fit_factors_at(
        checkpoint,
        corpus,
        model=view.model,
        train=view.train,
        influence=view.influence,
        seed=view.seed,
        progress=FitProgress(work.begin(), work.key),
        mixture=mixtures[0] if view.influence.factor_mixture == "current" else None,
        domains=domains,
    )


def collect_gradients(
    view: GradientView, checkpoint: Checkpoint, corpus: TokenShards, work: WorkFolder
) -> Callable[[Path], Any]:
    """Measure the mean gradient of every chunk of every task and domain that is not there yet."""
    from tikmix_pipeline.influence.measure import collect_gradients_at

    collect_gradients_at(
        checkpoint,
        corpus,
        work.begin(),
        model=view.model,
        train=view.train,
        influence=view.influence,
        seed=view.seed,
        turn=view.turn,
        code=gradient_key(view.model, view.influence),
    )
    return _written_already


def collect_gradients_until_stable(
    view: GrowthView,
    checkpoint: Checkpoint,
    corpus: TokenShards,
    work: WorkFolder,
    budget: TokenBudget,
    prior: MixtureRecord,
    factors: Factors | None = None,
) -> Callable[[Path], Any]:
    """Measure more and more of every domain until the mixture that it implies is stable (`influence.tokens=auto`)."""
    from tikmix_pipeline.influence.measure import collect_until_stable_at

    stopping = collect_until_stable_at(
        checkpoint,
        corpus,
        work.begin(),
        model=view.model,
        train=view.train,
        influence=view.influence,
        seed=view.seed,
        turn=view.turn,
        code=gradient_key(view.model, view.influence),
        factors=factors,
        horizon=view.horizon,
        decide=partial(implied_mixture, budget=budget, prior=prior.weights, optimize=view.optimize),
    )
    _LOG.info("%s", stopping.in_words(view.influence.stable_within))
    return _written_already


def _written_already(folder: Path) -> None:
    """Write nothing: the node worked in the artifact's own folder."""


def compute_influence(
    view: InfluenceView,
    checkpoint: Checkpoint,
    mixture: MixtureRecord,
    gradients: GradientStore,
    factors: Factors | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, SpreadRecord, Measurement]:
    """Compute how much more of each domain, and each chunk of it, would help each task; no pass through the model."""
    from tikmix_pipeline.influence.measure import multiply_at

    products_TMKL, curvature, matrix = multiply_at(checkpoint, gradients, **_through(view, factors))
    cost = _costs(view, checkpoint, factors) | {"gradients": gradients.cost, "matrix": matrix}
    return _tables(view, gradients, products_TMKL, curvature, mixture, stopping=gradients.notes, cost=cost)


def compute_domain_products(
    view: ProductsView, checkpoint: Checkpoint, gradients: GradientStore, factors: Factors | None = None
) -> pd.DataFrame:
    """Compute what domains do for each other's text, and how much less two give together than each alone."""
    import pandas as pd

    from tikmix_pipeline.influence.between_domains import product_rows
    from tikmix_pipeline.influence.measure_between import multiply_domains_at

    products = multiply_domains_at(checkpoint, gradients, **_through(view, factors))
    return pd.DataFrame(product_rows(gradients, products))


def _through(view: InfluenceView | ProductsView, factors: Factors | None) -> CurvatureArguments:
    return {
        "model": view.model,
        "train": view.train,
        "influence": view.influence,
        "horizon": view.horizon,
        "factors": factors,
    }


def stream_influence(
    view: StreamView,
    checkpoint: Checkpoint,
    mixture: MixtureRecord,
    corpus: TokenShards,
    work: WorkFolder,
    factors: Factors | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, SpreadRecord, Measurement]:
    """Measure, and compute what `compute_influence` does, with no gradient of a domain on disk."""
    from tikmix_pipeline.influence.streamed import stream_influence_at

    _LOG.info("Gradients are streamed: %s. Another curvature or damping measures the domains again.", view.reason)
    streamed = stream_influence_at(
        checkpoint,
        corpus,
        work.begin(),
        model=view.model,
        train=view.train,
        influence=view.influence,
        seed=view.seed,
        turn=view.turn,
        key=work.key,
        factors=factors,
        horizon=view.horizon,
    )
    cost = _costs(view, checkpoint, factors)
    cost |= {"gradients": streamed.gradient_cost, "matrix": streamed.matrix_cost}
    return _tables(view, streamed, streamed.products_TMKL, streamed.curvature, mixture, stopping={}, cost=cost)


def _costs(view: InfluenceView | StreamView, checkpoint: Checkpoint, factors: Factors | None) -> dict[str, Cost]:
    """Return what was spent before the gradients."""
    from tikmix_pipeline.influence.measure import rebalancing_cost
    from tikmix_pipeline.lm.cost_records import NO_COST

    return {
        "rebalancing": rebalancing_cost(checkpoint, view.model, view.train, steps=view.rebalancing_steps),
        "factors": factors.cost if factors is not None else NO_COST,
    }


def _tables(
    view: InfluenceView | StreamView,
    measured: MeasuredSets,
    products_TMKL: Floats,
    curvature: CurvatureReport,
    mixture: MixtureRecord,
    *,
    stopping: Mapping[str, Any],
    cost: Mapping[str, Cost],
) -> tuple[pd.DataFrame, pd.DataFrame, SpreadRecord, Measurement]:
    """Return what the products of all chunks amount to, as artifacts."""
    import pandas as pd

    from tikmix_pipeline.influence.group import influence_of
    from tikmix_pipeline.influence.report import chunk_rows, influence_rows, measurement, spread_record

    if curvature.left_out:
        _LOG.info("influence.groups leaves out %.0f %% of the model's parameters", 100 * curvature.left_out)
    calibration = view.influence.calibration
    scale = 1.0 if calibration is None else calibration
    found = influence_of(measured, products_TMKL, curvature, reference=mixture.weights, calibration=scale)
    report = measurement(found, view.influence, horizon=view.horizon, stopping=stopping, cost=cost)
    rows = influence_rows(found, is_calibrated=calibration is not None)
    return pd.DataFrame(rows), pd.DataFrame(chunk_rows(found)), spread_record(found), report


def draw_influence(view: TitledView, influence: pd.DataFrame) -> Figure:
    """Draw what was measured as a task x domain heat map."""
    from tikmix_pipeline.report.effect_figures import measured_effects

    return measured_effects(influence, origin=view.origin)
