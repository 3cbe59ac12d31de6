"""Nodes of the `influence` pipeline: factors of the curvature, part gradients, and what the two make together."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.paths import WorkFolder
from tikmix_pipeline.parameters import (
    InfluenceParameters,
    ModelParameters,
    OptimizeParameters,
    RunParameters,
    TrainParameters,
)
from tikmix_pipeline.pipelines.measuring import measuring_code
from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import Checkpoint, Factors, Figure, GradientStore, Table, TokenShards

_LOG = logging.getLogger(__name__)

_OF_FACTORS = {"curvature", "fisher", "groups", "factor_tokens", "context", "precision"}
_OF_GRADIENTS = {"tokens", "context", "items_per_task", "task_loss", "targets", "tasks", "micro_batches", "precision"}
_OF_GROWTH = {"max_tokens", "stable_within"}
_OF_CURVATURE = {"curvature", "groups", "inverse", "damping", "damping_unit"}


def _relevant_to_factors(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return _chosen(parameters, _OF_FACTORS, {"context"}) | {"seed": parameters.seed}


def _relevant_to_gradients(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return _chosen(parameters, _OF_GRADIENTS, {"context"}) | {"seed": parameters.seed}


def _relevant_to_growth(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del root
    return {
        **_chosen(parameters, _OF_GRADIENTS | _OF_GROWTH | _OF_CURVATURE, {"context", "beta2", "epsilon"}),
        "optimize": parameters.optimize.model_dump(mode="json"),
        "horizon": _horizon(parameters.train, parameters.tikmix.rounds, round_number),
        "seed": parameters.seed,
    }


def _relevant_to_influence(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del root
    return {
        **_chosen(parameters, _OF_CURVATURE | {"calibration"}, {"beta2", "epsilon"}),
        "horizon": _horizon(parameters.train, parameters.tikmix.rounds, round_number),
    }


def _chosen(parameters: RunParameters, influence: set[str], train: set[str]) -> dict[str, Any]:
    return {
        "influence": parameters.influence.model_dump(mode="json", include=influence),
        "train": parameters.train.model_dump(mode="json", include=train),
    }


def _horizon(train: TrainParameters, rounds: int, round_number: int) -> float:
    from tikmix_pipeline.lm.schedule import horizon_after

    return horizon_after(train, rounds, round_number)


@step(_relevant_to_factors)
def fit_curvature_factors(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    seed: int,
    work: WorkFolder,
) -> Callable[[Path], Any]:
    """Fit the second moments that the curvature is made of; go on where a killed fit stood."""
    from tikmix_pipeline.influence.curvature.progress import FitProgress
    from tikmix_pipeline.influence.measure import fit_factors_at

    progress = FitProgress(work.begin(), work.key)
    return fit_factors_at(
        checkpoint, corpus, model=model, train=train, influence=influence, seed=seed, progress=progress
    )


@step(_relevant_to_gradients)
def collect_part_gradients(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    seed: int,
    work: WorkFolder,
) -> Callable[[Path], Any]:
    """Measure the mean gradient of every part of every task and domain that is not there yet."""
    from tikmix_pipeline.influence.measure import collect_gradients_at

    code, folder = measuring_code(model, influence), work.begin()
    collect_gradients_at(
        checkpoint, corpus, folder, model=model, train=train, influence=influence, seed=seed, code=code
    )
    return _written_already


@step(_relevant_to_growth)
def collect_gradients_until_stable(
    checkpoint: Checkpoint,
    stock: Mapping[str, Any],
    prior: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    optimize: OptimizeParameters,
    rounds: int,
    seed: int,
    work: WorkFolder,
    factors: Factors | None = None,
) -> Callable[[Path], Any]:
    """Measure more and more of every domain until the mixture that it implies is stable (`influence.tokens=auto`)."""
    from tikmix_pipeline.influence.measure import collect_until_stable_at
    from tikmix_pipeline.mixture.implied import implied_mixture

    found = collect_until_stable_at(
        checkpoint,
        corpus,
        work.begin(),
        model=model,
        train=train,
        influence=influence,
        seed=seed,
        code=measuring_code(model, influence),
        factors=factors,
        horizon=_horizon(train, rounds, stock["round"]),
        decide=partial(implied_mixture, stock=dict(stock), prior=prior["weights"], optimize=optimize),
    )
    _LOG.info("%s", found.in_words(influence.stable_within))
    return _written_already


def _written_already(folder: Path) -> None:
    """Write nothing: the node worked in the artifact's own folder."""


@step(_relevant_to_influence)
def compute_influence(
    checkpoint: Checkpoint,
    mixture: Mapping[str, Any],
    gradients: GradientStore,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    rounds: int,
    factors: Factors | None = None,
) -> tuple[Table, Table, dict[str, Any], dict[str, Any]]:
    """Compute how much more of each domain, and each part of it, would help each task; no pass through the model."""
    from tikmix_pipeline.influence.group import influence_of
    from tikmix_pipeline.influence.measure import multiply_at
    from tikmix_pipeline.influence.report import influence_rows, measurement_report, part_rows, spread_record
    from tikmix_pipeline.lm.cost import NO_COST

    horizon = _horizon(train, rounds, mixture["round"])
    products_TMKL, curvature, matrix = multiply_at(
        checkpoint, gradients, model=model, train=train, influence=influence, horizon=horizon, factors=factors
    )
    found = influence_of(
        gradients, products_TMKL, curvature, reference=mixture["weights"], calibration=influence.calibration
    )
    cost = {
        "rebalancing": _rebalancing_cost(checkpoint, mixture["round"], model, train),
        "factors": factors.cost if factors is not None else NO_COST,
        "gradients": gradients.cost,
        "matrix": matrix,
    }
    report = measurement_report(found, influence, horizon=horizon, stopping=gradients.notes, cost=cost)
    return _as_table(influence_rows(found)), _as_table(part_rows(found)), spread_record(found), report


def _rebalancing_cost(checkpoint: Checkpoint, number: int, model: ModelParameters, train: TrainParameters) -> Any:
    from tikmix_pipeline.lm.cost import NO_COST, training_cost

    steps = checkpoint.step - (number + 1) * train.steps_per_chunk
    if steps <= 0:  # the round's own checkpoint, or one from elsewhere
        return NO_COST
    return training_cost(checkpoint.config(model), context=train.context, tokens=steps * train.tokens_per_step)


def _as_table(columns: Mapping[str, Any]) -> Table:
    import pandas as pd

    return pd.DataFrame(columns)


@step(nothing)
def draw_influence(influence: Table) -> Figure:
    """Draw the task x domain heat map."""
    from tikmix_pipeline.pipelines.figures import influence_heat_map

    return influence_heat_map(influence)
