"""Nodes of the `sweep` pipeline that judge surrogates, fit one, search it and draw what came of it."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import OptimizeParameters, RunParameters, SweepParameters, TikmixParameters
from tikmix_pipeline.pipelines.steps import Relevant, step
from tikmix_pipeline.pipelines.types import Figure, Surrogate, Table

_LOG = logging.getLogger(__name__)

_OF_TARGETS = {"response", "target", "objective"}
_OF_FIT = _OF_TARGETS | {"surrogate", "folds"}
_OF_JUDGEMENT = _OF_FIT | {"compared"}
_OF_SEARCH = _OF_FIT | {"require_better", "search"}


def _relevant(sweep: set[str]) -> Relevant:
    def relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
        del round_number, root
        is_aggregate, is_search = parameters.sweep.target == "aggregate", "search" in sweep
        return {
            "sweep": parameters.sweep.model_dump(mode="json", include=sweep),
            "optimize": parameters.optimize.model_dump(mode="json") if is_aggregate or is_search else {},
            "tikmix": parameters.tikmix.model_dump(mode="json", include={"memory", "prior"}),
            "seed": parameters.seed,
        }

    return relevant


def _drawn(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {"sweep": parameters.sweep.model_dump(mode="json", include={"surrogate"})}


@step(_relevant(_OF_JUDGEMENT))
def judge_surrogates(
    ratios: Table,
    metrics: Table,
    optimize: OptimizeParameters,
    sweep: SweepParameters,
    tikmix: TikmixParameters,
    seed: int,
    *influences: Table,
) -> tuple[Table, Table, Table]:
    """Cross-validate every surrogate beside the naive rules and the additive influence; two outputs are the same."""
    from tikmix_pipeline.mixture.sweep.quality import quality_tables
    from tikmix_pipeline.mixture.sweep.regression_data import regression_data

    data = regression_data(ratios, metrics, sweep, optimize, tikmix, influences)
    rows, predictions = quality_tables(data, sweep, seed=seed, round_number=len(influences) - 1)
    return rows, rows, predictions


@step(_relevant(_OF_JUDGEMENT))
def judge_tables(
    ratios: Table,
    metrics: Table,
    optimize: OptimizeParameters,
    sweep: SweepParameters,
    tikmix: TikmixParameters,
    seed: int,
    *test: Table,
) -> tuple[Table, Table, Table]:
    """Judge every surrogate on the test's tables, or by cross-validation if there are none."""
    from tikmix_pipeline.mixture.sweep.quality import quality_tables
    from tikmix_pipeline.mixture.sweep.regression_data import regression_data

    data = regression_data(ratios, metrics, sweep, optimize, tikmix)
    held_out = (test[0], test[1]) if test else None
    rows, predictions = quality_tables(data, sweep, seed=seed, round_number=0, test=held_out)
    return rows, rows, predictions


@step(_relevant(_OF_FIT))
def fit_surrogate(
    ratios: Table,
    metrics: Table,
    optimize: OptimizeParameters,
    sweep: SweepParameters,
    tikmix: TikmixParameters,
    seed: int,
    *influences: Table,
) -> tuple[Callable[[Path], Any], Table]:
    """Fit the surrogate on all runs, and ask which domains it looks at."""
    from tikmix_pipeline.mixture.sweep.regression_data import regression_data
    from tikmix_pipeline.mixture.sweep.surrogates import fitted_surrogate, importance_table, save_surrogate

    responses = regression_data(ratios, metrics, sweep, optimize, tikmix, influences).responses
    surrogate = fitted_surrogate(sweep.surrogate, responses, folds=sweep.folds, seed=seed)
    return partial(save_surrogate, surrogate), importance_table(surrogate, responses, seed=seed)


@step(_relevant(_OF_SEARCH))
def search_mixture(
    surrogate: Surrogate,
    ratios: Table,
    metrics: Table,
    quality: Table,
    design: Mapping[str, Any],
    direct: Mapping[str, Any],
    optimize: OptimizeParameters,
    sweep: SweepParameters,
    tikmix: TikmixParameters,
    seed: int,
    *influences: Table,
) -> tuple[dict[str, Any], Table]:
    """Search the surrogate for the mixture of the next round; D's is kept where it predicts no better."""
    from tikmix_pipeline.mixture.records import DecisionRecord, SweepDesign
    from tikmix_pipeline.mixture.sweep.choose import search_sweep
    from tikmix_pipeline.mixture.sweep.regression_data import regression_data

    found = search_sweep(
        surrogate,
        regression_data(ratios, metrics, sweep, optimize, tikmix, influences),
        SweepDesign.from_json(design),
        DecisionRecord.from_json(direct),
        quality,
        optimize,
        sweep,
        seed=seed,
    )
    return _decided(found, sweep, direct["round"])


@step(_relevant(_OF_SEARCH))
def search_tables(
    surrogate: Surrogate,
    ratios: Table,
    metrics: Table,
    optimize: OptimizeParameters,
    sweep: SweepParameters,
    tikmix: TikmixParameters,
    seed: int,
) -> tuple[dict[str, Any], Table]:
    """Search the surrogate of a user's tables for the best mixture within what they cover."""
    from tikmix_pipeline.mixture.sweep.choose import search_tables as search
    from tikmix_pipeline.mixture.sweep.regression_data import regression_data

    data = regression_data(ratios, metrics, sweep, optimize, tikmix)
    return _decided(search(surrogate, data, tikmix, optimize, sweep, seed=seed), sweep, 1)


def _decided(found: Any, sweep: SweepParameters, round_number: int) -> tuple[dict[str, Any], Table]:
    for note in found.notes:
        _LOG.info("%s", note)
    return found.to_record(sweep.response, round_number).to_json(), found.trace_table()


@step(_drawn)
def draw_sweep(
    predictions: Table, quality: Table, importance: Table, trace: Table, sweep: SweepParameters
) -> tuple[Figure, Figure, Figure]:
    """Draw predictions over measurements, what the surrogate looks at, and how it was searched."""
    from tikmix_pipeline.pipelines.sweep_figures import importance_heat_map, predicted_over_measured, search_trace

    predicted = predicted_over_measured(predictions, quality, sweep.surrogate)
    return predicted, importance_heat_map(importance), search_trace(trace)
