"""Runs ended at random times by SIGKILL, SIGTERM and SIGINT, and started again until they are through.

    make bench NAME=reliability/kills
    python benchmarks/reliability/kills.py --kills 15 --pipelines tikmix sweep --signals SIGINT --folder FOLDER

`ranks` is the loop with two processes that train and measure together.

A chain is one experiment: it is started, ended after a random time, uniform up to that of the undisturbed run, started
again, and so on until a start gets to the end before its time. What it leaves is compared file by file with what the
undisturbed run left.

A kill has held if it left no process behind, was told without a traceback, had the exit code of its signal and, for
SIGTERM and SIGINT, left no run in MLflow as RUNNING (SIGKILL can't be answered: the next start closes that run), and if
its chain ended in the same bits with no run as RUNNING. Figures: `tried`, `held`, `failed`; a script that is stopped
goes on with the next chain.
"""

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from campaign import (
    PIPELINES,
    Ended,
    Pipeline,
    Trials,
    copy_of,
    differing,
    digests,
    new_project,
    options,
    reference,
    run,
    running_in_mlflow,
)

CODES = {name: {-signal.Signals[name], 128 + signal.Signals[name]} for name in ("SIGKILL", "SIGTERM", "SIGINT")}
"""A process that a signal has ended has for a shell the code that one has which ends itself: 128 and the signal."""


def killed(project: Path, pipeline: Pipeline, name: str, after: float) -> Ended | None:
    """Run, send a signal `after` so many seconds, and return how it ended; None if it was through before."""
    was_sent = []

    def disturb(running: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + after
        while time.monotonic() < deadline:
            if running.poll() is not None:
                return
            time.sleep(0.005)
        running.send_signal(signal.Signals[name])
        was_sent.append(name)

    ended = run(project, pipeline, disturb)
    if not was_sent or ended.code == 0:
        return None if ended.code == 0 else ended
    return ended


def _error_of(output: str) -> str:
    """Return what the first traceback ends in."""
    lines = output.partition("Traceback (most recent call last)")[2].splitlines()[1:]
    return next((line for line in lines if line and not line.startswith(" ")), "cut off")[:300]


def problems(ended: Ended, project: Path, name: str) -> list[str]:
    """Say what a kill has not kept."""
    found = []
    if ended.code not in CODES[name]:
        found.append(f"exit code {ended.code}")
    if ended.left:
        found.append(f"{len(ended.left)} processes left")
    if not ended.is_told:
        found.append(f"traceback: {_error_of(ended.output)}")
    if name != "SIGKILL" and running_in_mlflow(project):
        found.append("a run is RUNNING in MLflow")
    return found


def chain(folder: Path, pipeline: Pipeline, name: str, count: int, times: random.Random) -> list[dict[str, Any]]:
    """Kill one experiment until it is through or `count` kills are done; return what came of each kill."""
    finished, seconds = reference(folder, pipeline)
    before = new_project(folder / "new") if not pipeline.on_loop else reference(folder, PIPELINES["tikmix"])[0]
    project = copy_of(before, folder / f"killed-{pipeline.name}-{name}")
    kills: list[dict[str, Any]] = []
    while len(kills) < count:
        after = times.uniform(0.2, seconds)
        ended = killed(project, pipeline, name, after)
        if ended is None:
            break
        kills.append({"after": round(after, 2), "problems": problems(ended, project, name)})
    last = run(project, pipeline)
    unequal = differing(digests(finished), digests(project))
    if last.code:
        unequal = [f"the next start ended with {last.code}: {last.output[-300:]}"]
    if running_in_mlflow(project):
        unequal.append("a run is RUNNING in MLflow")
    for kill in kills:
        kill["problems"] += [f"at the end: {', '.join(unequal[:4])}"] if unequal else []
    return kills


def main() -> None:
    """Kill, compare and count."""
    told = options(__doc__, {"signals": list(CODES)}, kills=100)
    folder = told.folder.resolve() / "kills"
    trials = Trials(folder / "kills.jsonl")
    for name in told.pipelines:
        for of_signal in told.signals:
            made = sum(1 for one in trials.results.values() if one["trial"][:2] == [name, of_signal])
            times = random.Random(f"{name} {of_signal} {made}")  # noqa: S311
            while made < told.kills:
                kills = chain(folder, PIPELINES[name], of_signal, told.kills - made, times)
                for number, kill in enumerate(kills, start=made):
                    why = "; ".join(kill["problems"])
                    trials.add([name, of_signal, number], held=not why, why=why, after=kill["after"])
                made += len(kills)
    trials.report(lambda trial: f"{trial[0]} {trial[1]}")


if __name__ == "__main__":
    main()
