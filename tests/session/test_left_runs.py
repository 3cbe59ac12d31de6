"""What a killed run left RUNNING is closed by the next one of its experiment and place, and nothing else is."""

from pathlib import Path

import mlflow

from tikmix_pipeline.session.tracking.left_runs import PLACE, close_left_runs, place_of


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
