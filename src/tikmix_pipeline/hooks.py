"""Tracking: the only code that touches MLflow.

One MLflow run per `kedro run`, a child run per round. Metrics are logged when the node that makes them ends, with
step = round (`loss/train`: the optimiser step); what an earlier run made and this one reuses is logged at the start, so
that every run can be compared whole. The store is `mlflow.db` at the project's root unless MLFLOW_TRACKING_URI is set.
A store that cannot be opened ends the run before it starts; one that fails later leaves the run untracked.
"""

import contextlib
import getpass
import logging
import math
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from tikmix_pipeline.datasets.recipes import flatten
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.agreement import MEAN_GAIN, MEAN_OF_TASKS
from tikmix_pipeline.run_context import RunContext, run_context
from tikmix_pipeline.summary import summary_table, validation_table

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_LOG = logging.getLogger(__name__)
_ROUND = re.compile(r"^round_(\d+)_(\w+)$")
_NOT_IN_A_METRIC = re.compile(r"[^\w. -]")
_EXPERIMENT = "tikmix"
_PARAMETER_LENGTH = 6000
_TAG_LENGTH = 500  # what the strictest stores take
_DESCRIPTION_LENGTH = 5000
_METRICS_PER_BATCH = 1000
_TABLES = {"evaluation", "final_evaluation", "influence", "mixture_rows", "branch_losses", "predictions", "validation"}
_FIGURES = {"influence_figure", "validation_figure", "candidates_figure"}
_LOGGED = {"train_log", "mixture", "measurement", "decision", *_TABLES, *_FIGURES}
_LOGGED_ONCE = {"corpus", "final_evaluation", "summary", "mixture_figure", "bits_per_byte_figure"}

Metrics = list[tuple[str, float, int]]
"""Key, value and step."""


class TrackingHooks:
    """Logs a run to MLflow as it goes, and prints its summary at the end."""

    def __init__(self) -> None:
        self._tracker: _Tracker | None = None
        self._catalog: Any = None
        self._started: dict[str, float] = {}
        self._seconds: Metrics = []

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Open the run; log the parameters and whatever is reused."""
        with self._closed_on_error():
            self._tracker = _Tracker(run_context(), run_params)
            self._catalog = catalog
            self._track(lambda tracker: tracker.log_parameters(run_context()))
            for name in sorted(pipeline.all_outputs()):
                if _is_logged(name) and catalog.exists(name):
                    self._log(name)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Remember when the node started."""
        self._started[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Remember how long the node took."""
        self._seconds.append((f"seconds/{node.name}", time.perf_counter() - self._started[node.name], 0))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Log what a node made, read back from where it was saved."""
        if _is_logged(dataset_name):
            self._log(dataset_name)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Show what came out, on the terminal and as the run's description; close the run."""
        with self._closed_on_error():
            table = _final_table(pipeline, catalog)
            if table is not None:
                click.echo(table)
                self._track(lambda tracker: tracker.describe(table))
        self.close_as("FINISHED")

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the run as failed."""
        self.close_as("FAILED")

    def close_as(self, status: str) -> None:
        """Close the run with MLflow's `status` (`FINISHED`, `FAILED`, `KILLED`); nothing if it is closed already.

        Kedro has no hook for an interrupt: the session calls this.
        """
        # last, because MLflow's comparison opens with the metric that was logged first
        self._track(lambda tracker: tracker.log_metrics(self._seconds))
        self._track(lambda tracker: tracker.close(status))
        self._tracker = None
        self._seconds = []

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Close the run when a hook fails before or after the nodes, where Kedro does not call `on_pipeline_error`."""
        try:
            yield
        except BaseException as error:
            self.close_as("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def _log(self, name: str) -> None:
        if self._tracker is not None:
            value = self._catalog.load(name)
            self._track(lambda tracker: tracker.log(name, value))

    def _track(self, action: "Callable[[_Tracker], None]") -> None:
        """Do something with the tracker, if there is one; go on without when its store fails."""
        if self._tracker is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            action(self._tracker)
        except (MlflowException, OSError) as error:  # what HTTP clients raise is an OSError too
            self._tracker = None
            _LOG.warning(
                "MLflow could not be reached: %s; the run goes on untracked, its files are complete",
                getattr(error, "message", error),
            )


def _final_table(pipeline: Pipeline, catalog: Any) -> str | None:
    """Return what a whole run, or a validation, has to say at its end."""
    experiment = run_context().parameters.experiment
    for name in pipeline.all_outputs():
        if name == "summary":
            return summary_table(catalog.load(name), experiment)
        if _kind_of(name) == "validation":
            return validation_table(catalog.load(name).to_dict("records"), experiment)
    return None


def _is_logged(name: str) -> bool:
    kind = _kind_of(name)
    return kind in _LOGGED if kind else name in _LOGGED_ONCE


def _kind_of(name: str) -> str | None:
    """Return what a dataset of a round is, without its round."""
    found = _ROUND.match(name)
    return found[2] if found else None


class _Tracker:
    """One MLflow run and the child runs of its rounds."""

    def __init__(self, context: RunContext, run_params: Mapping[str, Any]) -> None:
        overrides = flatten(run_params.get("runtime_params") or {})
        names = run_params.get("pipeline_names") or ["__default__"]
        self._name = context.parameters.experiment
        self._tags = {
            "mlflow.source.name": "kedro run",
            "mlflow.user": _user(),
            "experiment": self._name,
            "pipelines": ",".join(names).replace("__default__", "tikmix"),
            "environment": run_params.get("env") or "local",
            "overrides": ", ".join(f"{key}={value}" for key, value in overrides.items()) or "none",
            **{f"override.{key}": str(value) for key, value in overrides.items()},
            **code_version(context.root),
        }
        self._rounds: dict[int, str] = {}
        self._decided: dict[int, Metrics] = {}
        self._open(context.root)

    def _open(self, root: Path) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        try:
            self._client = mlflow.MlflowClient(elsewhere or f"sqlite:///{root.as_posix()}/mlflow.db")
            self._experiment_id = self._find_experiment(None if elsewhere else (root / "mlartifacts").as_uri())
            self._run_id = self._create_run(self._name, {})
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise TikmixError(
                f"The MLflow store cannot be used ({getattr(error, 'message', error)}). Move mlflow.db away if it is "
                "damaged, or set MLFLOW_TRACKING_URI to a store that works."
            ) from error

    def _find_experiment(self, location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(_EXPERIMENT)
        if found is None:
            # opens MLflow's pages in the view for training runs
            tags = {"mlflow.experimentKind": "custom_model_development"}
            try:
                return str(self._client.create_experiment(_EXPERIMENT, artifact_location=location, tags=tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(_EXPERIMENT)  # another run made it in between
                if found is None:
                    raise
        return str(found.experiment_id)

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        cut = {key: value[:_TAG_LENGTH] for key, value in {**self._tags, **tags}.items()}
        run = self._client.create_run(self._experiment_id, run_name=name, tags=cut)
        return str(run.info.run_id)

    def log_parameters(self, context: RunContext) -> None:
        """Log all parameters under dotted names."""
        from mlflow.entities import Param

        values = flatten(context.parameters.model_dump(mode="json"))
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
        if kind in _TABLES:
            self._log_table(kind, value, f"tables/round_{number}" if found else "tables")
        if kind in _METRICS:
            metrics = _METRICS[kind](value, number)
            self.log_metrics(metrics)
            if found:
                self._log_to_round(kind, metrics, number)

    def _log_to_round(self, kind: str, metrics: Metrics, number: int) -> None:
        """Log to the child run of a round; a mixture waits for the round to run, which the last one never does."""
        if number not in self._rounds:
            if kind == "mixture":
                self._decided[number] = metrics
                return
            tags = {"mlflow.parentRunId": self._run_id, "round": str(number)}
            self._rounds[number] = self._create_run(f"{self._name} round {number}", tags)
            metrics = [*self._decided.pop(number, []), *metrics]
        self.log_metrics(metrics, self._rounds[number])

    def _log_table(self, kind: str, table: Any, folder: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / f"{kind}.parquet"
            table.to_parquet(file, index=False)
            self._client.log_artifact(self._run_id, str(file), folder)

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
        self._client.log_dict(self._run_id, corpus.manifest["overlap"], "corpus/overlap.json")

    def describe(self, text: str) -> None:
        """Show `text` as it is on the run's page."""
        self._client.set_tag(
            self._run_id, "mlflow.note.content", f"```\n{text.strip()[: _DESCRIPTION_LENGTH - 8]}\n```"
        )

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
    rows: Iterable[Any] = table[["task", "domain", "influence", "effect"]].itertuples(index=False)
    return [
        entry
        for task, domain, influence, effect in rows
        for entry in (
            (f"influence/{task}/{domain}", influence, number),
            (f"effect/{task}/{domain}", effect, number),
        )
    ]


def _of_measurement(report: Mapping[str, Any], number: int) -> Metrics:
    stability = report["rank_stability"]["tasks"]
    return [(f"rank_stability/{task}", value, number) for task, value in stability.items() if value is not None]


def _of_validation(table: Any, number: int) -> Metrics:
    figures = ["spearman", "pearson", "slope", "ceiling", "pearson_ceiling"]
    metrics: Metrics = []
    for task, prefix in ((MEAN_OF_TASKS, ""), (MEAN_GAIN, "mean_gain_")):
        for row in table[table["task"] == task].to_dict("records"):
            candidate = _NOT_IN_A_METRIC.sub("", row["curvature"]).replace(" ", "-")
            metrics += [(f"validate/{candidate}/{prefix}{name}", row[name], number) for name in figures]
    return [entry for entry in metrics if not math.isnan(entry[1])]


def _of_mixture(mixture: Mapping[str, Any], number: int) -> Metrics:
    return [(f"mixture/{domain}", weight, number) for domain, weight in mixture["weights"].items()]


_METRICS = {
    "train_log": _of_training,
    "evaluation": _of_evaluation,
    "final_evaluation": _of_final,
    "influence": _of_influence,
    "measurement": _of_measurement,
    "mixture": _of_mixture,
    "validation": _of_validation,
}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not be in its passwd
        return str(os.getuid())


def code_version(root: Path) -> dict[str, str]:
    """Return the commit, marked when the work tree differs from it; nothing outside a git checkout."""
    from tikmix_pipeline import __version__

    tags = {"version": __version__}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = _git(root, "rev-parse", "HEAD")
        dirty = "-dirty" if _git(root, "status", "--porcelain") else ""
        tags |= {"commit": commit + dirty, "mlflow.source.git.commit": commit}
    return tags


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
