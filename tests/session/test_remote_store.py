"""Artifacts in an S3 bucket, and stores that fail in a client library's own way.

The bucket needs `pip install --no-deps -r tests/requirements-deploy.txt`. The whole way, with an MLflow server
and a whole run, is `benchmarks/remote_tracking.py`.
"""

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.run import Run
from tikmix_pipeline.session.run_hooks import RunHooks
from tikmix_pipeline.session.tracking.store import StoreClient, StoreError
from tikmix_pipeline.session.tracking.tracker import Tracker
from tikmix_pipeline.session.tracking_hooks import TrackingHooks

BUCKET = "mlflow-artifacts"
SOURCES = {"sources": [{"kind": "files", "path": "none.jsonl"}]}
CORPUS = {"name": "none", "domains": {"code": SOURCES}, "tasks": {"quiz": SOURCES}}
DECISION = DecisionRecord(
    strategy="direct", round=1, weights={"code": 1.0}, expected_gain={}, binding=(), notes=(), kept="direct"
)


def opened(root: Path) -> Tracker:
    parameters = check_parameters({"experiment": "far", "corpus": CORPUS})
    return Tracker(Run(parameters, {}, root, lambda *_: 0), {})


def uri_of(root: Path) -> str:
    return f"sqlite:///{root}/far.db"


def runs(root: Path) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(uri_of(root))
    store = client.get_experiment_by_name("tikmix")
    return list(client.search_runs([store.experiment_id])) if store else []


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database whose artifacts go to an S3 bucket."""
    folder = tmp_path_factory.mktemp("database")
    mlflow.MlflowClient(uri_of(folder)).create_experiment("tikmix", artifact_location=f"s3://{BUCKET}/tikmix")
    return folder / "far.db"


@pytest.fixture
def remote(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of that database; nobody serves the bucket."""
    shutil.copy2(database, tmp_path)
    for name, value in {
        "MLFLOW_TRACKING_URI": uri_of(tmp_path),
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def bucket(remote: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server in this process, with the bucket; its client."""
    boto3 = pytest.importorskip("boto3", reason="pip install --no-deps -r tests/requirements-deploy.txt")
    server_module = pytest.importorskip("moto.server", reason="pip install --no-deps -r tests/requirements-deploy.txt")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://{host}:{port}")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


def test_figures_and_tables_arrive_in_the_bucket(remote: Path, bucket: Any, tmp_path: Path) -> None:
    figure, table = tmp_path / "mixture.png", pd.DataFrame({"task": ["quiz"], "domain": ["code"], "influence": [0.5]})
    figure.write_bytes(b"a figure")
    tracker = opened(remote)
    tracker.log("mixture_figure", figure)
    tracker.log("round_0_influence", table.assign(effect=0.25, stderr=0.1))
    tracker.log("round_0_decision", DECISION)
    tracker.close("FINISHED")
    found = {
        entry["Key"].split("/artifacts/")[1]: bucket.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
        for entry in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]
    }
    assert found["figures/mixture.png"] == b"a figure"
    assert pd.read_parquet(io.BytesIO(found["tables/round_0/influence.parquet"]))["influence"].tolist() == [0.5]
    assert json.loads(found["decision/round_0.json"]) == DECISION.to_json()
    assert {run.data.metrics["influence/quiz/code"] for run in runs(remote)} == {0.5}


def test_bucket_that_goes_away_leaves_the_run_untracked(remote: Path, bucket: Any, caplog: Any) -> None:
    hooks = TrackingHooks(RunHooks())
    hooks._tracker = opened(remote)
    for entry in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        bucket.delete_object(Bucket=BUCKET, Key=entry["Key"])
    bucket.delete_bucket(Bucket=BUCKET)
    hooks._track(lambda tracker: tracker.log("round_0_decision", DECISION))
    assert hooks._tracker is None
    hooks.close_as("FINISHED")


def test_bucket_that_does_not_exist_ends_the_run_before_it_starts(remote: Path, bucket: Any) -> None:
    bucket.delete_bucket(Bucket=BUCKET)
    with pytest.raises(
        TikmixError, match=r"artifacts where they cannot be reached .*bucket does not exist.*MLFLOW_S3_ENDPOINT"
    ):
        opened(remote)
    assert [run.info.status for run in runs(remote)] == ["FAILED"]


def test_missing_client_library_is_named(remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(TikmixError, match=r"boto3.*--artifacts-destination"):
        opened(remote)


class UnlikeAnyError(Exception):
    """What a client library raises, which derives from nothing that MLflow knows."""


class Client:
    def log_batch(self, run_id: str) -> str:
        return run_id

    def log_artifact(self, path: str) -> None:
        raise UnlikeAnyError(path)


def test_client_raises_one_kind_of_error_and_keeps_the_message() -> None:
    client = StoreClient(Client(), "http://tracker")
    assert client.log_batch(run_id="one") == "one"
    with pytest.raises(StoreError, match="a bucket") as raised:
        client.log_artifact("a bucket")
    assert isinstance(raised.value.__cause__, UnlikeAnyError)
