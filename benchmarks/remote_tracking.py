"""A whole run that is tracked elsewhere: an MLflow server with a database, and its artifacts in an S3 bucket.

    pip install --no-deps -r tests/requirements-deploy.txt
    python benchmarks/remote_tracking.py

moto serves the bucket and `mlflow server` a SQLite database, both on loopback; a run of two small rounds (the project
of the tests, with text of its own) logs to them by MLFLOW_TRACKING_URI. Twice: once the run writes to the bucket itself
(`--default-artifact-root`), once through the server (`--artifacts-destination`), which needs neither boto3 nor keys
where the run is. A third run loses its bucket halfway.

Figures: files in the bucket, metrics and child runs at the server (`direct_...`, `served_...`), seconds of the runs
(`local_seconds`: tracked in a local file), and whether the run without a bucket came through (`lost_finished`).
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import mlflow
from moto.server import ThreadedMotoServer

from common import machine, print_figures

REPOSITORY = Path(__file__).resolve().parents[1]
BUCKET = "mlflow-artifacts"
KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_MAX_ATTEMPTS": "1",
    "COLUMNS": "400",  # so that no message of the run is broken
    "AWS_DEFAULT_REGION": "us-east-1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def mlflow_server(folder: Path, environment: Mapping[str, str], option: str) -> Iterator[str]:
    """Serve a database, with artifacts in the bucket; yield the address once it answers."""
    folder.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += [option, f"s3://{BUCKET}/{folder.name}", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310
                break
            if server.poll() is not None:
                sys.exit(f"mlflow server ended:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def run(project: Path, environment: Mapping[str, str], experiment: str) -> "subprocess.Popen[str]":
    """Start a run of the small project."""
    command = [sys.executable, "-m", "kedro", "run", "--env", "tiny", "--params", f"experiment={experiment}"]
    return subprocess.Popen(
        command, cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(process: "subprocess.Popen[str]") -> tuple[float, str]:
    """Wait for a run; return its seconds and what it said."""
    start = time.perf_counter()
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the run failed:\n{output[-3000:]}")
    return time.perf_counter() - start, output


def what_arrived(address: str, s3: Any, prefix: str) -> dict[str, float]:
    """Return how much of a run is at the server and in the bucket."""
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("tikmix")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]]
    assert parent.info.status == "FINISHED", parent.info.status
    assert any(key.endswith("figures/mixture.png") for key in keys), keys
    assert any(key.endswith("tables/round_1/influence.parquet") for key in keys), keys
    return {"files": len(keys), "metrics": len(parent.data.metrics), "child_runs": len(runs) - 1}


def lose_bucket(project: Path, environment: Mapping[str, str], server: ThreadedMotoServer, experiment: str) -> float:
    """Run, and stop the bucket's server when the first round has its checkpoint; return 1 if the run came through."""
    process = run(project, environment, experiment)
    while not (project / "data" / "06_models" / experiment / "round_0").exists() and process.poll() is None:
        time.sleep(0.02)
    server.stop()
    _, output = finished(process)
    assert "goes on untracked" in output, output[-2000:]
    report = project / "data" / "08_reporting" / experiment
    return float(report.is_dir())


def main() -> None:
    """Run the benchmark and print its figures."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.pipelines.conftest import make_project

    print(machine("mlflow", "boto3", "moto"))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    os.environ |= KEYS | {"MLFLOW_S3_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port())}
    local = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    keyless = {name: value for name, value in local.items() if not name.startswith(("AWS_", "MLFLOW_S3"))}
    s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    s3.create_bucket(Bucket=BUCKET)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = make_project(folder / "project")
        finished(run(project, local, "first"))  # prepares the corpus
        figures["local_seconds"], _ = finished(run(project, local, "local"))
        for way, option, environment in (
            ("served", "--artifacts-destination", keyless),
            ("direct", "--default-artifact-root", local),
        ):
            with mlflow_server(folder / way, local, option) as address:
                tracked = {**environment, "MLFLOW_TRACKING_URI": address}
                figures[f"{way}_seconds"], _ = finished(run(project, tracked, way))
                figures |= {f"{way}_{key}": value for key, value in what_arrived(address, s3, way).items()}
                print(way, figures, file=sys.stderr)
                if way == "direct":
                    figures["lost_finished"] = lose_bucket(project, tracked, server, "lost")
    print_figures(figures)


if __name__ == "__main__":
    main()
