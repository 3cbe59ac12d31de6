"""Nodes of the `sweep` pipeline that judge surrogates, fit one, search it and draw what came of it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import OptimizeParameters, RunParameters, SweepParameters, TikmixParameters
from tikmix_pipeline.pipelines.steps import Relevant, step
from tikmix_pipeline.pipelines.types import Figure, Modelled, Surrogate, Table

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
    modelled = _modelled(ratios, metrics, optimize, sweep, tikmix, influences)
    return _judged(modelled, None, sweep, seed, len(influences) - 1)


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
    from tikmix_pipeline.mixture.sweep.tables import responses_of

    modelled = _modelled(ratios, metrics, optimize, sweep, tikmix, ())
    return _judged(modelled, modelled.aggregated(responses_of(*test)) if test else None, sweep, seed, 0)


def _judged(
    modelled: Modelled, test: Any, sweep: SweepParameters, seed: int, number: int
) -> tuple[Table, Table, Table]:
    import pandas as pd

    from tikmix_pipeline.mixture.sweep.quality import judge
    from tikmix_pipeline.mixture.sweep.tables import matching_domains

    responses = modelled.responses
    found = judge(
        responses,
        sweep.all_compared,
        folds=sweep.folds,
        seed=seed,
        additive_NT=modelled.additive(modelled.measured) if test is None else None,
        matches=matching_domains(responses.domains, responses.targets),
        test=test,
    )
    rows = pd.DataFrame([{"round": number, **row} for row in found.rows])
    return rows, rows, pd.DataFrame(found.prediction_rows())


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
    from functools import partial

    import pandas as pd

    from tikmix_pipeline.mixture.sweep.persist import save_surrogate
    from tikmix_pipeline.mixture.sweep.surrogates import fitted_surrogate, importance

    responses = _modelled(ratios, metrics, optimize, sweep, tikmix, influences).responses
    surrogate = fitted_surrogate(sweep.surrogate, responses, folds=sweep.folds, seed=seed)
    importance_TK = importance(surrogate, responses.weights_NK, responses.response_NT, seed=seed)
    rows = [
        {"target": target, "domain": domain, "importance": float(importance_TK[t, k])}
        for t, target in enumerate(responses.targets)
        for k, domain in enumerate(responses.domains)
    ]
    return partial(save_surrogate, surrogate), pd.DataFrame(rows)


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
    import numpy as np

    from tikmix_pipeline.mixture.bounds import unlimited_bounds
    from tikmix_pipeline.mixture.sweep.decide import solve_surrogate
    from tikmix_pipeline.mixture.sweep.quality import better_than_additive

    modelled = _modelled(ratios, metrics, optimize, sweep, tikmix, influences)
    is_better, reason = better_than_additive(quality.to_dict("records"), sweep.surrogate)
    _LOG.info("%s", reason)
    low_K, high_K = (
        np.array([design["box"][side][domain] for domain in modelled.measured.domains]) for side in ("low", "high")
    )
    found = solve_surrogate(
        surrogate.predict,
        modelled=modelled,
        direct=direct,
        box=(low_K, high_K),
        groups=unlimited_bounds(optimize, modelled.measured.domains).halfspaces(),
        parameters=optimize,
        sweep=sweep,
        seed=seed,
        keep_direct=None if is_better or not sweep.require_better else reason,
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
    from tikmix_pipeline.mixture.sweep.decide import solve_surrogate
    from tikmix_pipeline.mixture.sweep.modelled import covered_box, table_bounds, table_prior

    modelled = _modelled(ratios, metrics, optimize, sweep, tikmix, ())
    prior_K = table_prior(tikmix.prior, modelled.measured)
    bounds = table_bounds(optimize, modelled.measured, prior_K)
    found = solve_surrogate(
        surrogate.predict,
        modelled=modelled,
        direct=None,
        prior_K=prior_K,
        box=covered_box(modelled.measured, bounds),
        groups=bounds.halfspaces(),
        parameters=optimize,
        sweep=sweep,
        seed=seed,
    )
    return _decided(found, sweep, 1)


def _decided(found: Any, sweep: SweepParameters, round_number: int) -> tuple[dict[str, Any], Table]:
    import pandas as pd

    decision = {
        "strategy": "surrogate",
        "response": sweep.response,
        "round": round_number,
        **found.to_dict(),
    }
    for note in found.notes:
        _LOG.info("%s", note)
    return decision, pd.DataFrame(found.search.rows(found.domains))


@step(_drawn)
def draw_sweep(
    predictions: Table, quality: Table, importance: Table, trace: Table, sweep: SweepParameters
) -> tuple[Figure, Figure, Figure]:
    """Draw predictions over measurements, what the surrogate looks at, and how it was searched."""
    from tikmix_pipeline.report.run_figures import importance_heat_map, predicted_over_measured, search_trace

    predicted = predicted_over_measured(predictions, quality, sweep.surrogate)
    return predicted, importance_heat_map(importance), search_trace(trace)


def _modelled(
    ratios: Table,
    metrics: Table,
    optimize: OptimizeParameters,
    sweep: SweepParameters,
    tikmix: TikmixParameters,
    influences: tuple[Table, ...],
) -> Modelled:
    """Return the measured responses on their scale, with the influence that D decided on where there is one."""
    from tikmix_pipeline.mixture.sweep.modelled import Modelled
    from tikmix_pipeline.mixture.sweep.tables import responses_of
    from tikmix_pipeline.pipelines.decisions import remembered

    measured = responses_of(ratios, metrics)
    influence_TK = None
    if influences:
        tasks, influence_TK = remembered(influences, measured.domains, tikmix)
        influence_TK = influence_TK[[tasks.index(target) for target in measured.targets]]
    return Modelled.of(measured, influence_TK=influence_TK, sweep=sweep, parameters=optimize)
