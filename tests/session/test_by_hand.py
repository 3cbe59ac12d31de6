"""Runs that are not started by `kedro run`: a session of Kedro's own in a script."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from kedro.pipeline import Pipeline

from tests.session.test_mlflow_store import run_in
from tikmix_pipeline.session.run_hooks import RunHooks
from tikmix_pipeline.session.tracking.store import open_store


def test_a_run_that_nobody_closed_is_closed_as_killed_by_the_next_or_at_the_end(tmp_path: Path) -> None:
    """Kedro's own session tells its hooks nothing of Ctrl-C; a notebook goes on, a script ends."""
    code = """
import sys, pathlib, types
from kedro.pipeline import Pipeline
from tests.session.test_mlflow_store import run_in
from tikmix_pipeline.session.tracking_hooks import TrackingHooks
hooks = TrackingHooks(types.SimpleNamespace(run=run_in(pathlib.Path(sys.argv[1]))))
for _ in range(2):
    hooks.before_pipeline_run({}, Pipeline([]), types.SimpleNamespace())
"""
    store = open_store(tmp_path)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
    runs = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs([store.experiment_id])
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]


def test_a_lock_that_nobody_gave_back_is_not_in_the_way_of_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = RunHooks()
    monkeypatch.setattr(hooks, "_run", run_in(tmp_path))
    monkeypatch.setattr("tikmix_pipeline.session.run_hooks._check", lambda *_: None)
    monkeypatch.setattr("tikmix_pipeline.plan.records_of", lambda *_: {})
    catalog: Any = SimpleNamespace(exists=lambda _: False)
    for _ in range(2):
        hooks.before_pipeline_run({}, Pipeline([]), catalog)
    hooks.close_as("FINISHED")
