"""A run that the system ends, as Slurm and Kubernetes do, is closed in the store and goes on where it stood."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow

from tests.pipelines.conftest import run_in


def test_sigterm_closes_the_run_and_its_rounds_as_killed_and_the_same_command_goes_on(project: Path) -> None:
    """In the middle of round 1's chunk."""
    command = [sys.executable, "-m", "kedro", "run", "--env", "tiny", "--params"]
    told = "experiment=ended,train.chunk_tokens=3200,train.save_every_steps=5"
    running = subprocess.Popen([*command, told], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    models = project / "data" / "06_models" / "ended"
    resume_point = models / "round_1.resume.key.json"
    deadline = time.monotonic() + 300
    while not resume_point.exists():
        assert running.poll() is None, "the run ended before it could be ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 143
    assert b"Interrupted by SIGTERM" in said
    assert b"Traceback" not in said
    assert resume_point.exists()
    assert not (models / "round_1").exists()
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    store = client.get_experiment_by_name("tikmix")
    assert store is not None
    runs = client.search_runs([store.experiment_id], "tags.experiment = 'ended'")
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"], "the run, and its first round"
    run_in(project, experiment="ended", train={"chunk_tokens": 3200})
    assert (models / "round_1" / "model.safetensors").exists()
