"""Tracking: the only code that touches MLflow.

One MLflow run per `kedro run`, a child run per round. Metrics are logged when the node that makes them ends, with
step = round (`loss/train`: the optimiser step); what an earlier run made and this one reuses is logged at the start, so
that every run can be compared whole. The store is `mlflow.db` at the project's root unless MLFLOW_TRACKING_URI is set.
"""

import contextlib
import getpass
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.run_context import RunContext, run_context
from tikmix_pipeline.summary import summary_table

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_ROUND = re.compile(r"^round_(\d+)_(\w+)$")
_EXPERIMENT = "tikmix"
_PARAMETER_LENGTH = 6000
_METRICS_PER_BATCH = 1000
_LOGGED = {"train_log", "evaluation", "influence", "influence_figure", "mixture", "measurement", "decision"}
_LOGGED_ONCE = {"corpus", "final_evaluation", "summary", "mixture_figure", "bits_per_byte_figure"}

Metrics = list[tuple[str, float, int]]
"""Key, value and step."""


class TrackingHooks:
    """Logs a run to MLflow as it goes, and prints its summary at the end."""

    def __init__(self) -> None:
        self._tracker: _Tracker | None = None
        self._catalog: Any = None
        self._started: dict[str, float] = {}

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Open the run; log the parameters and whatever is reused."""
        self._tracker = _Tracker(run_context(), run_params)
        self._catalog = catalog
        for name in sorted(pipeline.all_outputs()):
            if _is_logged(name) and catalog.exists(name):
                self._tracker.log(name, catalog.load(name))

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Remember when the node started."""
        self._started[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Log how long the node took."""
        if self._tracker is not None:
            self._tracker.log_metrics([(f"seconds/{node.name}", time.perf_counter() - self._started[node.name], 0)])

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Log what a node made, read back from where it was saved."""
        if self._tracker is not None and _is_logged(dataset_name):
            self._tracker.log(dataset_name, self._catalog.load(dataset_name))

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Show what came out, on the terminal and as the run's description; close the run."""
        if "summary" in pipeline.all_outputs():
            table = summary_table(catalog.load("summary"), run_context().parameters.experiment)
            click.echo(table)
            if self._tracker is not None:
                self._tracker.describe(table)
        self._close("FINISHED")

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the run as failed."""
        self._close("FAILED")

    def _close(self, status: str) -> None:
        if self._tracker is not None:
            self._tracker.close(status)
            self._tracker = None


def _is_logged(name: str) -> bool:
    found = _ROUND.match(name)
    return found[2] in _LOGGED if found else name in _LOGGED_ONCE


class _Tracker:
    """One MLflow run and the child runs of its rounds."""

    def __init__(self, context: RunContext, run_params: Mapping[str, Any]) -> None:
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{context.root.as_posix()}/mlflow.db"
        self._client = mlflow.MlflowClient(uri)
        self._experiment_id = self._find_experiment(context.root)
        parameters = context.parameters
        self._name = parameters.experiment
        overrides = flatten(run_params.get("runtime_params") or {})
        names = run_params.get("pipeline_names") or ["__default__"]
        self._tags = {
            "mlflow.source.name": "kedro run",
            "mlflow.user": getpass.getuser(),
            "experiment": parameters.experiment,
            "pipelines": ",".join(names).replace("__default__", "tikmix"),
            "environment": run_params.get("env") or "local",
            "overrides": ", ".join(f"{key}={value}" for key, value in overrides.items()) or "none",
            **{f"override.{key}": str(value) for key, value in overrides.items()},
            **_code_version(context.root),
        }
        self._run_id = self._create_run(self._name, {})
        self._rounds: dict[int, str] = {}
        self._log_parameters(flatten(parameters.model_dump(mode="json")))

    def _find_experiment(self, root: Path) -> str:
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_experiment_by_name(_EXPERIMENT)
            if found is not None:
                return str(found.experiment_id)
            location = None if "MLFLOW_TRACKING_URI" in os.environ else (root / "mlartifacts").as_uri()
            # opens MLflow's pages in the view for training runs
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(self._client.create_experiment(_EXPERIMENT, artifact_location=location, tags=tags))
        except MlflowException as error:
            raise TikmixError(
                f"The MLflow store cannot be used ({error.message}). Move mlflow.db away if it is damaged, or set "
                "MLFLOW_TRACKING_URI to a store that works."
            ) from error

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment_id, run_name=name, tags={**self._tags, **tags})
        return str(run.info.run_id)

    def _log_parameters(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, str(value)[:_PARAMETER_LENGTH]) for key, value in values.items()]
        for start in range(0, len(entries), 100):
            self._client.log_batch(self._run_id, params=entries[start : start + 100])

    def log_metrics(self, metrics: Metrics, run_id: str | None = None) -> None:
        """Log many metrics in few transactions."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, value, now, step) for key, value, step in metrics]
        for start in range(0, len(entries), _METRICS_PER_BATCH):
            self._client.log_batch(run_id or self._run_id, metrics=entries[start : start + _METRICS_PER_BATCH])

    def log(self, name: str, value: Any) -> None:
        """Log a dataset's content to the run, and to the child run of its round."""
        found = _ROUND.match(name)
        number, kind = (int(found[1]), found[2]) if found else (0, name)
        if isinstance(value, Path):
            self._client.log_artifact(self._run_id, str(value), "figures")
        elif kind == "corpus":
            self._log_corpus(value)
        elif kind in ("decision", "measurement", "summary"):
            self._client.log_dict(self._run_id, value, f"{kind}/round_{number}.json" if found else f"{kind}.json")
        else:
            metrics = _METRICS[kind](value, number)
            self.log_metrics(metrics)
            if found:
                self.log_metrics(metrics, self._run_of_round(number))

    def _run_of_round(self, number: int) -> str:
        if number not in self._rounds:
            tags = {"mlflow.parentRunId": self._run_id, "round": str(number)}
            self._rounds[number] = self._create_run(f"{self._name} round {number}", tags)
        return self._rounds[number]

    def _log_corpus(self, corpus: Any) -> None:
        import json

        from mlflow.entities import Dataset, DatasetInput

        inputs = [
            DatasetInput(
                Dataset(
                    name=domain,
                    digest=corpus.digest(domain)[:32],
                    source_type="local",
                    source=json.dumps({"uri": (corpus.folder / domain).as_posix()}),
                    profile=json.dumps({"tokens": corpus.tokens(domain), "documents": corpus.documents(domain)}),
                )
            )
            for domain in corpus.domains
        ]
        self._client.log_inputs(self._run_id, datasets=inputs)

    def describe(self, text: str) -> None:
        """Show `text` as it is on the run's page."""
        self._client.set_tag(self._run_id, "mlflow.note.content", f"```\n{text.strip()}\n```")

    def close(self, status: str) -> None:
        """End the run and its children."""
        for run_id in [*self._rounds.values(), self._run_id]:
            self._client.set_terminated(run_id, status)


def _of_training(table: Any, number: int) -> Metrics:
    del number
    rows = zip(table["step"].tolist(), table["loss"].tolist(), table["learning_rate"].tolist(), strict=True)
    return [entry for step, loss, rate in rows for entry in (("loss/train", loss, step), ("learning_rate", rate, step))]


def _of_evaluation(table: Any, number: int, prefix: str = "bpb") -> Metrics:
    main = {"task": "answer", "domain": "text"}
    rows = table[["name", "kind", "measure", "bits_per_byte"]].itertuples(index=False)
    metrics: Metrics = [
        (f"{prefix}/{name}" if measure == main[kind] else f"{prefix}_{measure}/{name}", value, number)
        for name, kind, measure, value in rows
    ]
    tasks = table[(table["kind"] == "task") & (table["measure"] == "answer")]["bits_per_byte"]
    return [*metrics, (f"{prefix}/mean_of_tasks", float(tasks.mean()), number)]


def _of_final(table: Any, number: int) -> Metrics:
    return _of_evaluation(table, number, prefix="final_bpb")


def _of_influence(table: Any, number: int) -> Metrics:
    rows: Iterable[Any] = table[["task", "domain", "influence"]].itertuples(index=False)
    return [(f"influence/{task}/{domain}", value, number) for task, domain, value in rows]


def _of_mixture(mixture: Mapping[str, Any], number: int) -> Metrics:
    return [(f"mixture/{domain}", weight, number) for domain, weight in mixture["weights"].items()]


_METRICS = {
    "train_log": _of_training,
    "evaluation": _of_evaluation,
    "final_evaluation": _of_final,
    "influence": _of_influence,
    "mixture": _of_mixture,
}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one of dotted keys; an empty mapping stays as it is."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    return {
        key: leaf
        for name, part in value.items()
        for key, leaf in flatten(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _code_version(root: Path) -> dict[str, str]:
    """Return the commit, marked when the work tree differs from it; nothing outside a git checkout."""
    from tikmix_pipeline import __version__

    tags = {"version": __version__}
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
        tags |= {"commit": commit, "mlflow.source.git.commit": commit.removesuffix("-dirty")}
    return tags
