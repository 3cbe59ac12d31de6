"""Kedro hooks that log a run; with `tracking`, the only code that touches MLflow.

One MLflow run per `kedro run`, a child run per round. Metrics are logged when the node that makes them ends, with
step = round (`loss/train`: the optimiser step); what an earlier run made and this one reuses is logged at the start, so
that every run can be compared whole. The store is `mlflow.db` at the project's root unless MLFLOW_TRACKING_URI is set.
A store that cannot be opened ends the run before it starts, unless `tracking` is optional; one that fails later leaves
the run untracked.
"""

import atexit
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import click
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.laid_out import LaidOut
from tikmix_pipeline.report.terminal_tables import (
    comparison_text,
    remix_text,
    summary_table,
    sweep_table,
    validation_table,
)
from tikmix_pipeline.session.run_hooks import RunHooks
from tikmix_pipeline.session.tracking.logged import CHECKPOINT, is_logged, split_name
from tikmix_pipeline.session.tracking.store import StoreError
from tikmix_pipeline.session.tracking.system_metrics import require_monitor
from tikmix_pipeline.session.tracking.tracker import Tracker

_LOG = logging.getLogger(__name__)


class TrackingHooks:
    """Logs a run to MLflow as it goes, and prints its summary at the end."""

    def __init__(self, run_hooks: RunHooks) -> None:
        self._run_hooks = run_hooks
        self._tracker: Tracker | None = None
        self._catalog: Any = None
        self._started: dict[str, float] = {}
        self._seconds: list[tuple[str, float]] = []

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Open the run; log the parameters and whatever is reused."""
        self.close_as("KILLED")  # a run that a session of Kedro's own has left open, as in a notebook after Ctrl-C
        atexit.unregister(self.close_as)
        atexit.register(self.close_as, "KILLED")
        with self._closed_on_error():
            require_monitor(self._run_hooks.run.parameters.mlflow.system_metrics)
            self._tracker, self._catalog = self._opened(run_params), catalog
            stages = {stage for node in pipeline.nodes for stage in node.tags}
            self._track(lambda tracker: tracker.log_parameters(self._run_hooks.run, stages))
            if any(split_name(name)[1] == "evaluation" for name in pipeline.all_outputs()):
                self._track(lambda tracker: tracker.hold_for_headline())
            if "comparison_scores" in pipeline.all_outputs():
                self._track(lambda tracker: tracker.adopt())
            for name in _reused(pipeline):
                if catalog.exists(name):
                    self._log(name)

    def _opened(self, run_params: Mapping[str, Any]) -> Tracker | None:
        run = self._run_hooks.run
        try:
            return Tracker(run, run_params)
        except TikmixError as error:
            if run.parameters.tracking == "required":
                raise
            problem = str(error).removesuffix(" tracking=optional goes on without.")
            _LOG.warning("%s The run goes on untracked (tracking=optional).", problem)
        return None

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Remember when the node started."""
        self._started[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Remember how long the node took."""
        self._seconds.append((node.name, time.perf_counter() - self._started[node.name]))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Log what a node made, read back from where it was saved."""
        if is_logged(dataset_name):
            self._log(dataset_name)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Show what came out, on the terminal and as the run's description; close the run."""
        with self._closed_on_error():
            ending = _ending(pipeline.all_outputs(), catalog.load, self._run_hooks.run.parameters.experiment)
            if ending is not None:
                click.echo(ending.text)
                self._track(lambda tracker: tracker.describe(ending))
            self._register()
        self.close_as("FINISHED")

    def _register(self) -> None:
        """Register the best round, if that is asked for."""
        name = self._run_hooks.run.parameters.mlflow.registered_model

        def register(tracker: Tracker) -> None:
            told = tracker.register(name) if name else None
            if told:
                click.echo(told)

        self._track(register)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the run as failed."""
        self.close_as("FAILED")

    def close_as(self, status: str) -> None:
        """Close the run with MLflow's `status` (`FINISHED`, `FAILED`, `KILLED`); nothing if it is closed already.

        Kedro has no hook for an interrupt: the session calls this.
        """
        # last, because MLflow's comparison opens with the metric that was logged first
        tracker = self._tracker
        self._track(lambda tracker: tracker.log_last(self._seconds))
        self._tracker = tracker  # whatever became of its last metrics, the run is closed
        self._track(lambda tracker: tracker.close(status))
        self._tracker = None
        self._seconds = []

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Close the run when a hook fails before or after the nodes, where Kedro does not call `on_pipeline_error`."""
        try:
            yield
        except BaseException as error:
            self.close_as("FAILED" if isinstance(error, Exception) else "KILLED")
            raise

    def _log(self, name: str) -> None:
        if self._tracker is not None:
            is_checkpoint = split_name(name)[1] == CHECKPOINT
            value = self._catalog.get(name).path if is_checkpoint else self._catalog.load(name)
            self._track(lambda tracker: tracker.log(name, value))

    def _track(self, action: Callable[[Tracker], None]) -> None:
        """Do something with the tracker, if there is one; go on without when its store fails."""
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except (StoreError, OSError) as error:  # a full disk stops the temporary file of an artifact
            self._tracker.stop_watching()
            self._tracker = None
            _LOG.warning("MLflow could not be reached: %s; the run goes on untracked, its files are complete", error)


def _reused(pipeline: Pipeline) -> list[str]:
    """Return what is logged of what an earlier run may have made: the text first, which scores are about, rounds next.

    The text counts where it is only read, too.
    """
    names = {name for name in pipeline.all_outputs() if is_logged(name)} | pipeline.datasets() & {"corpus"}
    return sorted(names, key=lambda name: (name != "corpus", split_name(name)[0] is None, name))


def _ending(outputs: Collection[str], load: Callable[[str], Any], experiment: str) -> LaidOut | None:
    """Return what a run ends with which was to make these datasets, if it ends with tables."""
    if "comparison_table" in outputs:
        return comparison_text(load("comparison_table"), experiment)
    if "summary" in outputs:
        return summary_table(load("summary"), experiment)
    reports = sorted(name for name in outputs if split_name(name)[1] == "report_content")
    if reports:
        return remix_text(load(reports[-1]))
    for name in sorted(outputs, reverse=True):
        number, kind = split_name(name)
        if kind == "validation":
            return validation_table(load(name).to_dict("records"), experiment)
        if kind == "sweep_decision":
            quality = f"round_{number}_sweep_quality"
            if quality in outputs:
                steps = f"round_{number}_sweep_steps"
                told = load(steps).to_dict("records") if steps in outputs else ()
                return sweep_table(load(name), load(quality).to_dict("records"), experiment, told)
    return None
