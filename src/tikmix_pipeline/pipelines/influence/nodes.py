"""Nodes of the `influence` pipeline: factors of the curvature, part gradients, and what the two make together."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from tikmix_pipeline.datasets.paths import WorkFolder
from tikmix_pipeline.parameters import (
    InfluenceParameters,
    ModelParameters,
    OptimizeParameters,
    RunParameters,
    TrainParameters,
)
from tikmix_pipeline.pipelines.influence import on_ranks
from tikmix_pipeline.pipelines.measuring import curvature_at, measuring_code
from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import Checkpoint, Factors, Figure, GradientStore, MeasuredText, Table, TokenShards

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
    if train.world_size > 1:
        return on_ranks.fit(checkpoint, corpus, model, train, influence, seed, work)
    from tikmix_pipeline.influence.curvature.factors import Kind
    from tikmix_pipeline.influence.curvature.fit import fit_factors
    from tikmix_pipeline.influence.curvature.progress import FitProgress

    text = _text(checkpoint, corpus, model, train, influence, seed)
    factors = fit_factors(
        text.model,
        text.factor_batches(),
        kind=cast("Kind", influence.curvature),  # a curvature without factors has no such node
        fisher=influence.fisher,
        seed=seed,
        groups=influence.groups,
        progress=FitProgress(work.begin(), work.key),
    )
    write: Callable[[Path], Any] = factors.save
    return write


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
    if train.world_size > 1:
        on_ranks.collect(checkpoint, corpus, model, train, influence, seed, work.begin())
        return _written_already
    from tikmix_pipeline.influence.collect import collect_gradients, measurement_key
    from tikmix_pipeline.influence.store import GradientStore

    text = _text(checkpoint, corpus, model, train, influence, seed)
    collect_gradients(
        text.model,
        {"task": text.target_parts(), "domain": text.domain_parts()},
        GradientStore(work.begin()),
        key=measurement_key(text.model, measuring_code(model, influence)),
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
    from tikmix_pipeline.influence.collect import measurement_key
    from tikmix_pipeline.influence.grow import collect_until_stable
    from tikmix_pipeline.influence.stopping import Stopping
    from tikmix_pipeline.influence.store import GradientStore
    from tikmix_pipeline.mixture.implied import implied_mixture

    horizon, store = _horizon(train, rounds, stock["round"]), GradientStore(work.begin())
    decision: dict[str, Any] = {"stock": dict(stock), "prior": prior["weights"], "optimize": optimize}
    if train.world_size > 1:
        growth = {**decision, "optimize": optimize.model_dump(mode="json")}
        of_ranks = partial(on_ranks.collect, horizon=horizon, factors=factors, growth=growth)
        of_ranks(checkpoint, corpus, model, train, influence, seed, store.folder)
    else:
        text = _text(checkpoint, corpus, model, train, influence, seed)
        targets = text.target_parts()
        collect_until_stable(
            text.model,
            targets,
            text.growing_domain_parts(),
            curvature_at(checkpoint, text.model, train, influence, factors, horizon),
            store,
            key=measurement_key(text.model, measuring_code(model, influence)),
            implied_mixture=implied_mixture(**decision, tasks=list(targets)),
            parameters=influence,
        )
    _LOG.info("%s", Stopping.from_dict(store.notes).in_words(influence.stable_within))
    return _written_already


def _written_already(folder: Path) -> None:
    """Write nothing: the node worked in the artifact's own folder."""


def _text(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    seed: int,
) -> MeasuredText:
    from tikmix_pipeline.influence.samples import MeasuredText

    return MeasuredText.open(checkpoint, corpus, model=model, train=train, influence=influence, seed=seed)


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
    from tikmix_pipeline.influence.report import influence_rows, measurement_report, part_rows, spread_record
    from tikmix_pipeline.lm.cost import NO_COST

    horizon = _horizon(train, rounds, mixture["round"])
    multiply = on_ranks.multiply if train.world_size > 1 else _multiply
    products_TMKL, curvature, matrix = multiply(checkpoint, gradients, model, train, influence, horizon, factors)
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


def _multiply(
    checkpoint: Checkpoint,
    gradients: GradientStore,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    horizon: float,
    factors: Factors | None,
) -> tuple[Any, Any, Any]:
    """Return the products of all parts, the report of the curvature they went through, and the cost of both."""
    from tikmix_pipeline.influence.products import counted_products
    from tikmix_pipeline.lm.model import resolve_device

    device = resolve_device(influence.device)
    outline = checkpoint.outline(model)
    curvature = curvature_at(checkpoint, outline, train, influence, factors, horizon, device=device)
    products_TMKL, cost = counted_products(
        gradients, curvature, memory_megabytes=influence.memory_megabytes, device=device
    )
    return products_TMKL, curvature.report, curvature.cost + cost


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
    from tikmix_pipeline.report.run_figures import influence_heat_map

    return influence_heat_map(influence)
