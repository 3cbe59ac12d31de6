"""What a sweep leaves in MLflow besides metrics: its candidates, and the fitted surrogate as a logged model."""

import warnings
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.session.tracking.logged import Metrics, keys_of

if TYPE_CHECKING:
    import pandas as pd

BEST_CANDIDATES = 10
"""So many get a run of their own."""

_RUN = "run"
_MIXTURE = "mixture/"
_RESPONSE = "response/"
_LOADED_WITH = {"numpy", "scikit-learn", "scipy", "skops", "tikmix-pipeline", "xgboost", "xgboost-cpu"}
_EXAMPLE_ROWS = 2


def candidates_table(ratios: "pd.DataFrame", metrics: "pd.DataFrame") -> "pd.DataFrame":
    """Return every candidate with its mixture, its responses and its mean rank over the targets, 1 being the best.

    Columns are `run` and the domains, or `run` and the targets, of which lower is better. A candidate without responses
    stays in, with nothing in these columns.
    """
    mixtures = ratios.set_index(_RUN).add_prefix(_MIXTURE)
    responses = metrics.set_index(_RUN).add_prefix(_RESPONSE)
    table = mixtures.join(responses, validate="one_to_one")
    table["mean_rank"] = table[list(responses.columns)].rank().mean(axis=1, skipna=False)
    return table.reset_index()


def best_candidates(candidates: "pd.DataFrame") -> dict[str, Metrics]:
    """Return the best of `candidates_table` by their mean rank, best first, and what is logged of each."""
    best = candidates.dropna(subset="mean_rank").sort_values("mean_rank", kind="stable").head(BEST_CANDIDATES)
    return {row[_RUN]: _metrics_of(row) for row in best.to_dict("records")}


def _metrics_of(row: dict[str, Any]) -> Metrics:
    metrics: Metrics = [("mean_rank", row["mean_rank"], 0)]
    for prefix in (_MIXTURE, _RESPONSE):
        named = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
        keys = keys_of(named)
        metrics += [(prefix + keys[name], value, 0) for name, value in named.items()]
    return metrics


def write_model(estimator: Any, ratios: "pd.DataFrame", metrics: "pd.DataFrame", entry: Any, folder: Path) -> None:
    """Write a fitted surrogate as an MLflow model: in the format of skops, which loads no code.

    Args:
        estimator: takes shares in the order of the domains and predicts responses in the order of the targets.
        ratios: columns `run` and the domains.
        metrics: columns `run` and the targets.
        entry: the logged model that the store has made for it.
        folder: does not exist yet.
    """
    with warnings.catch_warnings():  # what MLflow warns of while it is imported is its own
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        import mlflow.sklearn
    from mlflow.models import Model, infer_signature

    from tikmix_pipeline.mixture.sweep.surrogates import TRUSTED_TYPES  # which imports scikit-learn

    domains = [name for name in ratios.columns if name != _RUN]
    example = ratios[domains].head(_EXAMPLE_ROWS).to_numpy(dtype="float64")
    mlflow.sklearn.save_model(
        estimator,
        str(folder),
        mlflow_model=Model(model_uuid=entry.model_id, model_id=entry.model_id, run_id=entry.source_run_id),
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        skops_trusted_types=list(TRUSTED_TYPES),
        signature=infer_signature(example, estimator.predict(example)),
        input_example=example,
        metadata={"domains": domains, "targets": [name for name in metrics.columns if name != _RUN]},
        pip_requirements=_requirements(),  # else MLflow finds them by loading the model in another process
    )


def _requirements() -> list[str]:
    installed = {part.name.lower(): part.version for part in distributions() if part.name}
    return [f"{name}=={installed[name]}" for name in sorted(_LOADED_WITH & set(installed))]
