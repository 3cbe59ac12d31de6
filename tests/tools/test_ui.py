"""`make ui` says which page to open: the runs of what was run last."""

from pathlib import Path

import mlflow
import pytest

from tools import ui


def test_the_page_is_that_of_the_runs_of_the_experiment_that_was_changed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    client.create_experiment("first")
    last = client.create_experiment("second")
    client.create_run(last)
    assert ui.page() == f"http://127.0.0.1:5000/#/experiments/{last}/runs?workflowType=machine_learning"


def test_without_runs_it_is_the_list_of_experiments_and_no_store_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ui.page() == "http://127.0.0.1:5000/#/experiments"
    assert not list(tmp_path.iterdir())
