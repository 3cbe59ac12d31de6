"""Whether several processes train and measure what one does, and whether a run survives the death of one of them.

Each run is `kedro run --env smoke` of two rounds in a scratch project, chunks of 50 steps with a resume point every 10,
influence with K-FAC: by one process, by 2 and by 4 ranks, by 4 ranks that hold two copies of the model, and by 2 ranks
of which one is ended by SIGKILL, inside the training of round 1 or while its gradients are measured. Ranks are
processes of this machine, on the CPU over gloo: what is compared are results, not speed.

    make bench NAME=scale

Figures, each against one process over the first round: `ranks_loss_difference` and `four_ranks_loss_difference`, the
largest of a training loss in nats per token; `ranks_influence_difference`, `four_ranks_influence_difference` and
`copies_influence_difference`, the largest of an influence over the largest influence; `ranks_same_tokens`. And
`killed_mixture_difference` and `killed_measuring_mixture_difference`, the largest of a weight of the last mixture, of
the killed runs against the undisturbed one on as many ranks.
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
RANKS = {"one": 1, "two": 2, "four": 4, "copies": 4, "killed": 2, "killed_measuring": 2}
SHARDS = {"copies": 2}
KILLED_ON = {
    "killed": "06_models/killed/round_1.resume/step_*/state.json",
    "killed_measuring": "07_model_output/killed_measuring/round_1/gradients/domain-*/0001.safetensors",
}
"""What a run has kept when one of its ranks is killed."""


def start_run(project: Path, name: str) -> "subprocess.Popen[bytes]":
    """Start the run of that name, its output in a log of the project."""
    values = {
        "experiment": name,
        "tikmix.rounds": ROUNDS,
        "train.world_size": RANKS[name],
        "train.shard": SHARDS.get(name, RANKS[name]),
        "train.chunk_tokens": STEPS * 16 * 256,
        "train.save_every_steps": INTERVAL,
    }
    parameters = ",".join(f"{key}={value}" for key, value in values.items())
    with (project / f"{name}.log").open("wb") as log:
        return kedro_run(project, "--env", "smoke", "--params", parameters, threads=1, log=log)


def kill_one_rank(project: Path, run: "subprocess.Popen[bytes]", name: str) -> str:
    """Wait until there is something for the others to go on from, end one rank, and name what there was."""
    while run.poll() is None:
        kept = sorted((project / "data").glob(KILLED_ON[name]))
        ranks = subprocess.run(
            ["pgrep", "-P", str(run.pid), "-f", "spawn_main"], capture_output=True, text=True, check=False
        ).stdout.split()
        if kept and ranks:
            os.kill(int(ranks[-1]), signal.SIGKILL)
            return str(kept[0].relative_to(project / "data"))
        time.sleep(0.005)
    raise SystemExit(f"{name} had nothing to kill a rank at: see {project / f'{name}.log'}")


def output(project: Path, name: str) -> Path:
    """Return where a run's tables are."""
    return project / "data" / "07_model_output" / name


def losses(project: Path, name: str) -> pd.Series:
    """Return the training losses of the first round by step."""
    return pd.read_parquet(output(project, name) / "round_0" / "train_log.parquet").set_index("step")["loss"]


def influence(project: Path, name: str) -> pd.Series:
    """Return the influence matrix of the first round."""
    table = pd.read_parquet(output(project, name) / "round_0" / "influence.parquet")
    return table.set_index(["task", "domain"])["influence"]


def mixture(project: Path, name: str) -> pd.Series:
    """Return the last mixture that was decided."""
    mixtures = pd.read_parquet(output(project, name) / "mixtures.parquet")
    last = mixtures[mixtures["round"] == mixtures["round"].max()]
    return last.set_index("domain")["weight"]


def tokens_read(project: Path, name: str) -> object:
    """Return what the stream's state says after the first round."""
    return read_json(project / "data" / "06_models" / name / "round_0" / "training_state.json")["stream"]


def deaths(project: Path, name: str) -> int:
    """Return how many ranks the launcher saw killed."""
    return (project / f"{name}.log").read_text(encoding="utf-8").count("failed (exitcode: -9)")


def main() -> None:
    """Run by one process and by ranks, and print what differs."""
    print(machine("torch"))
    seconds, killed = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        project = scratch_project(Path(scratch) / "project")
        for name in RANKS:
            start = time.perf_counter()
            run = start_run(project, name)
            if name in KILLED_ON:
                killed[name] = kill_one_rank(project, run, name)
            if run.wait():
                sys.exit((project / f"{name}.log").read_text(encoding="utf-8"))
            seconds[name] = time.perf_counter() - start
            print(f"{name}: {seconds[name]:.0f} s", flush=True)
        loss = {name: (losses(project, name) - losses(project, "one")).abs().max() for name in RANKS}
        expected = influence(project, "one")
        matrix = {name: (influence(project, name) - expected).abs().max() / expected.abs().max() for name in RANKS}
        same = all(tokens_read(project, name) == tokens_read(project, "one") for name in RANKS)
        moved = {name: (mixture(project, name) - mixture(project, "two")).abs().max() for name in KILLED_ON}
        seen = {name: deaths(project, name) for name in KILLED_ON}
    rows = [
        [name, str(RANKS[name]), f"{loss[name]:.1e}", f"{matrix[name]:.1e}", f"{seconds[name]:.0f}"] for name in RANKS
    ]
    print_table(["run", "ranks", "loss difference", "influence difference", "seconds"], rows)
    for name, kept in killed.items():
        print(
            f"{name}: rank killed with {kept}, {seen[name]} seen to die; the last mixture moved by {moved[name]:.1e}."
        )
    print_figures(
        {
            "ranks_loss_difference": loss["two"],
            "four_ranks_loss_difference": loss["four"],
            "ranks_influence_difference": matrix["two"],
            "four_ranks_influence_difference": matrix["four"],
            "copies_influence_difference": matrix["copies"],
            "ranks_same_tokens": same,
            "killed_mixture_difference": moved["killed"],
            "killed_measuring_mixture_difference": moved["killed_measuring"],
        }
    )


if __name__ == "__main__":
    main()
