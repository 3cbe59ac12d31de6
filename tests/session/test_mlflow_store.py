"""Which MLflow store a run goes to, and how soon one that cannot be used is told."""

import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from kedro.pipeline import Pipeline

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.run import Run
from tikmix_pipeline.session.tracking import store
from tikmix_pipeline.session.tracking.store import open_store
from tikmix_pipeline.session.tracking.tracker import Tracker
from tikmix_pipeline.session.tracking_hooks import TrackingHooks

SOURCES = {"sources": [{"kind": "files", "path": "none.jsonl"}]}
CORPUS = {"name": "none", "domains": {"code": SOURCES}, "tasks": {"quiz": SOURCES}}


def run_in(root: Path, **parameters: Any) -> Run:
    return Run(check_parameters({"experiment": "far", "corpus": CORPUS, **parameters}), {}, root, lambda *_: 0)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of one who takes a connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 "),
        ("http://somebody:secret@127.0.0.1:9", "http://...@127.0.0.1:9 "),
        ("postgresql://somebody:secret@127.0.0.1:9/mlflow", "postgresql://...@127.0.0.1:9/mlflow "),
        ("sqlite:////proc/none/mlflow.db", "sqlite:////proc/none/mlflow.db "),
        ("htp://127.0.0.1:9", "htp://127.0.0.1:9 "),
    ],
)
def test_a_store_that_cannot_be_reached_is_named_within_ten_seconds(
    tmp_path: Path, uri: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    start = time.monotonic()
    with pytest.raises(TikmixError, match="MLflow store cannot be used") as error:
        Tracker(run_in(tmp_path), {})
    assert time.monotonic() - start < 10
    assert f"cannot be used: {shown}(" in str(error.value)
    assert "secret" not in str(error.value)
    assert "see that it runs and that MLFLOW_TRACKING_URI is its address" in str(error.value).replace("See", "see")
    assert "mlflow.db away" not in str(error.value)


def test_a_store_that_does_not_answer_is_given_up_as_soon_unless_the_user_has_said_otherwise(
    tmp_path: Path, silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{silent_server}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    start = time.monotonic()
    with pytest.raises(TikmixError, match="cannot be used"):
        open_store(tmp_path)
    assert 1 <= time.monotonic() - start < 6


@pytest.mark.parametrize("uri", ["https://mlflow.example/", "postgresql://somebody@mlflow.example/runs"])
def test_a_name_server_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: given_up.wait(60))
    monkeypatch.setattr(store, "_SECONDS", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TikmixError, match=r"no name server tells the address of mlflow\.example within"):
        open_store(tmp_path)
    given_up.set()


def test_a_name_without_an_address_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    with pytest.raises(TikmixError, match=r"mlflow\.example:5000 \(Name or service not known\)"):
        open_store(tmp_path)


def test_a_damaged_store_of_this_folder_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database " * 1000)
    with pytest.raises(TikmixError, match=r"mlflow\.db \(file is not a database\)\. Move mlflow\.db away"):
        open_store(tmp_path)


def test_a_store_that_may_not_be_written_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(TikmixError, match=r"unable to open database file.*see that this folder can be written to"):
        open_store(tmp_path)


def test_optional_tracking_goes_on_without_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    log = logging.getLogger("tikmix_pipeline.session.tracking_hooks")
    monkeypatch.setattr(log, "propagate", False)
    log.addHandler(caplog.handler)
    hooks = TrackingHooks(SimpleNamespace(run=run_in(tmp_path, tracking="optional")))  # type: ignore[arg-type]
    hooks.before_pipeline_run({}, Pipeline([]), SimpleNamespace())
    hooks.close_as("FINISHED")
    log.removeHandler(caplog.handler)
    assert "http://127.0.0.1:9" in caplog.text
    assert "The run goes on untracked (tracking=optional)." in caplog.text


def test_the_experiment_is_the_one_that_the_environment_names(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    ours = client.get_experiment_by_name("tikmix")
    assert ours is not None
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    assert client.get_experiment(open_store(root).experiment_id).name == "team"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", ours.experiment_id)
    with pytest.raises(TikmixError, match="is the experiment 'tikmix', and MLFLOW_EXPERIMENT_NAME is 'team'"):
        open_store(root)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert open_store(root).experiment_id == ours.experiment_id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "4711")
    with pytest.raises(TikmixError, match="MLFLOW_EXPERIMENT_ID=4711 is no experiment"):
        open_store(root)


def test_a_deleted_experiment_is_told_with_the_way_back(root: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    client.delete_experiment(open_store(root).experiment_id)
    with pytest.raises(TikmixError, match=r"'tikmix' of the MLflow store was deleted.*experiments restore"):
        open_store(root)


def test_the_run_that_the_environment_names_becomes_the_parent(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    other = client.create_experiment("team")
    parent = client.create_run(other).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    Tracker(run_in(root), {}).close("FINISHED")
    (child,) = (run for run in client.search_runs([other]) if run.info.run_id != parent)
    assert child.data.tags["mlflow.parentRunId"] == parent
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(TikmixError, match=r"MLFLOW_RUN_ID=0+ is no run of the MLflow store"):
        open_store(root)
