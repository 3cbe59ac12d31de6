"""Whether several processes train what one does, and whether a run survives the death of one of them.

Each run is `kedro run --env smoke` of two rounds in a scratch project, chunks of 50 steps with a resume point every 10:
by one process, by 2 and by 4 ranks, and by 2 ranks of which one is ended by SIGKILL inside round 1. Ranks are processes
of this machine, on the CPU over gloo: what is compared are results, not speed.

    make bench NAME=scale

Figures: `ranks_loss_difference` and `four_ranks_loss_difference`, largest difference of a training loss in nats per
token over the first round's 50 steps, against one process; `ranks_same_tokens`; `killed_mixture_difference`, largest
difference of a weight of the last mixture, of the killed run against the undisturbed one on as many ranks.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from common import machine, print_figures, print_table
from project import kedro_run, scratch_project
from tikmix_pipeline.files import read_json

STEPS, INTERVAL, ROUNDS = 50, 10, 2
RUNS = {"one": 1, "two": 2, "four": 4, "killed": 2}


def start_run(project: Path, name: str) -> "subprocess.Popen[bytes]":
    """Start the run of that name, its output in a log of the project."""
    values = {
        "experiment": name,
        "tikmix.rounds": ROUNDS,
        "train.world_size": RUNS[name],
        "train.chunk_tokens": STEPS * 16 * 256,
        "train.save_every_steps": INTERVAL,
    }
    parameters = ",".join(f"{key}={value}" for key, value in values.items())
    with (project / f"{name}.log").open("wb") as log:
        return kedro_run(project, "--env", "smoke", "--params", parameters, threads=1, log=log)


def kill_one_rank(project: Path, run: "subprocess.Popen[bytes]") -> int:
    """Wait until round 1 has a resume point, end one of its ranks, and return the step of that point."""
    folder = project / "data" / "06_models" / "killed" / "round_1.resume"
    while run.poll() is None:
        points = sorted(folder.glob("step_*/state.json"))
        if points:
            found = subprocess.run(
                ["pgrep", "-P", str(run.pid), "-f", "spawn_main"], capture_output=True, text=True, check=True
            )
            os.kill(int(found.stdout.split()[-1]), signal.SIGKILL)
            return int(points[0].parent.name.removeprefix("step_"))
        time.sleep(0.01)
    raise SystemExit(f"round 1 had no resume point to kill a rank at: see {project / 'killed.log'}")


def losses(project: Path, name: str) -> pd.Series:
    """Return the training losses of the first round by step."""
    log = pd.read_parquet(project / "data" / "07_model_output" / name / "round_0" / "train_log.parquet")
    return log.set_index("step")["loss"]


def mixture(project: Path, name: str) -> pd.Series:
    """Return the last mixture that was decided."""
    mixtures = pd.read_parquet(project / "data" / "07_model_output" / name / "mixtures.parquet")
    last = mixtures[mixtures["round"] == mixtures["round"].max()]
    return last.set_index("domain")["weight"]


def tokens_read(project: Path, name: str) -> object:
    """Return what the stream's state says after the first round."""
    return read_json(project / "data" / "06_models" / name / "round_0" / "training_state.json")["stream"]


def main() -> None:
    """Run by one process and by ranks, and print what differs."""
    print(machine("torch"))
    seconds, killed_at = {}, 0
    with tempfile.TemporaryDirectory() as scratch:
        project = scratch_project(Path(scratch) / "project")
        for name in RUNS:
            start = time.perf_counter()
            run = start_run(project, name)
            if name == "killed":
                killed_at = kill_one_rank(project, run)
            if run.wait():
                sys.exit((project / f"{name}.log").read_text(encoding="utf-8"))
            seconds[name] = time.perf_counter() - start
        differences = {name: (losses(project, name) - losses(project, "one")).abs().max() for name in RUNS}
        same = all(tokens_read(project, name) == tokens_read(project, "one") for name in RUNS)
        moved = (mixture(project, "killed") - mixture(project, "two")).abs().max()
    rows = [[name, str(RUNS[name]), f"{differences[name]:.1e}", f"{seconds[name]:.0f}"] for name in RUNS]
    print_table(["run", "ranks", "loss difference", "seconds"], rows)
    print(f"One rank was killed after step {killed_at} of round 1: the last mixture moved by {moved:.1e}.")
    print_figures(
        {
            "ranks_loss_difference": differences["two"],
            "four_ranks_loss_difference": differences["four"],
            "ranks_same_tokens": same,
            "killed_mixture_difference": moved,
        }
    )


if __name__ == "__main__":
    main()
