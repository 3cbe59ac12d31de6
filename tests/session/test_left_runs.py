"""What a killed run left RUNNING is closed by the next one of its experiment and place, and nothing else is."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import mlflow
import pytest

from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.run import Run
from tikmix_pipeline.session.tracking.left_runs import PLACE, close_left_runs, place_of
from tikmix_pipeline.session.tracking.store import StoreClient
from tikmix_pipeline.session.tracking.tracker import Tracker

SOURCES = {"sources": [{"kind": "files", "path": "none.jsonl"}]}


def test_runs_of_this_experiment_and_place_alone_are_closed_as_killed(tmp_path: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("tikmix", artifact_location=str(tmp_path))
    here, elsewhere = place_of(tmp_path / "a"), place_of(tmp_path / "b")
    tags = {"mine": ("one", here), "other": ("two", here), "far": ("one", elsewhere), "done": ("one", here)}
    runs = {
        key: client.create_run(experiment, tags={"experiment": name, PLACE: place}).info.run_id
        for key, (name, place) in tags.items()
    }
    client.set_terminated(runs["done"], "FINISHED")
    close_left_runs(client, experiment, "one", here)
    found = {key: client.get_run(run).info.status for key, run in runs.items()}
    assert found == {"mine": "KILLED", "other": "RUNNING", "far": "RUNNING", "done": "FINISHED"}


def tracker_in(root: Path) -> Tracker:
    corpus = {"name": "none", "domains": {"code": SOURCES}, "tasks": {"quiz": SOURCES}}
    return Tracker(Run(check_parameters({"experiment": "one", "corpus": corpus}), {}, root, lambda *_: 0), {})


def statuses(root: Path) -> list[str]:
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    return [run.info.status for run in client.search_runs([one.experiment_id for one in client.search_experiments()])]


def end(*_: object) -> NoReturn:
    raise SystemExit(143)


def test_a_run_whose_creation_a_signal_interrupts_is_closed(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    monkeypatch.setattr(Tracker, "_require_artifacts", end)
    with pytest.raises(SystemExit):
        tracker_in(tmp_path)
    assert statuses(tmp_path) == ["KILLED"]


def test_runs_that_a_signal_has_kept_from_being_known_are_closed_with_the_rest(template: Path, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    tracker = tracker_in(tmp_path)
    tracker._create_run("a candidate", {})  # and the signal comes
    tracker.close("KILLED")
    assert statuses(tmp_path) == ["KILLED", "KILLED"]


class Interrupted:
    """A client of a store that a signal interrupts in all that it does."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], None]:
        def method() -> None:
            signal.raise_signal(signal.SIGTERM)
            self.done.append(name)

        return method


@pytest.mark.parametrize(
    ("uri", "method", "is_done"),
    [
        ("sqlite:///mlflow.db", "log_batch", True),
        ("sqlite:///mlflow.db", "log_artifacts", False),  # which may take long, and locks nothing
        ("https://tracker", "log_batch", False),
    ],
)
def test_a_signal_leaves_no_transaction_of_a_file_open(uri: str, method: str, is_done: bool) -> None:
    """Before a commit it once did: the store was locked against the calls that close the run, which stayed RUNNING."""
    client = Interrupted()
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit):
            getattr(StoreClient(client, uri), method)()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert client.done == [method] * is_done
