"""Two commands at once in one project: each pair either goes through, or the second is refused by a lock.

    make bench NAME=reliability/two_at_once
    python benchmarks/reliability/two_at_once.py --times 5 --folder FOLDER

Pairs: the loop and the same loop; two experiments that share a corpus which is still to be made; the loop and the
exports (`reweight`) of a finished experiment; the loop and `reweight` of the same experiment; the loop and readers of
the MLflow store, as the MLflow UI reads it; the loop and the same loop on another host, on a file system that does not
pass locks on. The second starts a random time after the first, or with it.

A trial has held if each command goes through, or ends with "is at work on" or by naming what it needs, they are not
both refused for each other, and, after whoever was refused has been started again, the loop has the bits of an
undisturbed run and no run is left RUNNING. Figures: `tried`, `held`, `failed`.
"""

import contextlib
import dataclasses
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

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

LOOP = PIPELINES["tikmix"]
OTHER = dataclasses.replace(LOOP, experiment="other")
EXPORT = Pipeline("reweight", "finished", "round=0")
PAIRS: dict[str, tuple[Pipeline, Pipeline]] = {
    "the same loop": (LOOP, LOOP),
    "two experiments": (LOOP, OTHER),
    "exports of another": (LOOP, EXPORT),
    "exports of the same": (LOOP, dataclasses.replace(EXPORT, experiment="loop")),
    "two hosts": (dataclasses.replace(LOOP, host="node-1"), dataclasses.replace(LOOP, host="node-2")),
}


def both(project: Path, first: Pipeline, second: Callable[[Path], Ended], after: float) -> tuple[Ended, Ended]:
    """Run one command, and another beside it `after` so many seconds."""
    beside: list[Ended] = []

    def late() -> None:
        time.sleep(after)
        beside.append(second(project))

    thread = threading.Thread(target=late)
    thread.start()
    ended = run(project, first)
    thread.join()
    return ended, beside[0]


def in_log_of_its_own(pipeline: Pipeline) -> Callable[[Path], Ended]:
    """Return what runs a second command of a project."""
    return lambda project: run(project, pipeline, log="second.log")


def read_store(project: Path) -> Ended:
    """Read the MLflow store again and again, as its UI does, until the run beside has ended."""
    reads = 0
    deadline = time.monotonic() + 600
    store = project / "mlflow.db"
    while time.monotonic() < deadline:
        if store.exists():
            with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
                tables = [name for (name,) in connection.execute("select name from sqlite_master where type='table'")]
                if "metrics" in tables:
                    connection.execute("select count(*), max(value) from metrics").fetchall()
                    ended = connection.execute("select count(*) from runs where status = 'FINISHED'").fetchone()[0]
                    reads += 1
                    if ended > 1:
                        break
        time.sleep(0.01)
    return Ended(0, f"{reads} reads", 0)


def problems(
    project: Path, commands: list[Pipeline], ended: tuple[Ended, Ended], expected: dict[str, str]
) -> list[str]:
    """Say what is wrong with how two commands ended, and with what the next start leaves."""
    found = []
    for command, one in zip(commands, ended, strict=False):
        if not one.is_told:
            found.append(f"traceback: {one.output[-300:]}")
        if one.code and "is at work on" not in one.output and "This run needs" not in one.output:
            found.append(f"exit code {one.code}: {one.output[-300:]}")
        if "untracked" in one.output:
            found.append("it went on untracked")
        if one.code and (again := run(project, command)).code:
            found.append(f"the next start ended with {again.code}: {again.output[-300:]}")
    if all("is at work on" in one.output for one in ended):
        found.append("each was refused for the other")
    unequal = differing(expected, digests(project, LOOP.experiment))
    found += [f"other bits: {', '.join(unequal[:4])}"] if unequal else []
    found += ["a run is RUNNING in MLflow"] if running_in_mlflow(project) else []
    return found


def with_finished(new: Path, finished: Path, folder: Path) -> Path:
    """Lay out a project that has nothing but, under another name, the exports' experiment."""
    project = copy_of(finished, folder)
    for layer in ("06_models", "07_model_output", "08_reporting"):
        shutil.move(project / "data" / layer / LOOP.experiment, project / "data" / layer / EXPORT.experiment)
    shutil.rmtree(project / "conf")
    shutil.copytree(new / "conf", project / "conf")
    return project


def main() -> None:
    """Run the pairs and count."""
    told = options(__doc__, times=10)
    folder = told.folder.resolve() / "two_at_once"
    finished, seconds = reference(folder, LOOP)
    expected = digests(finished, LOOP.experiment)
    trials = Trials(folder / "two_at_once.jsonl")
    for number in range(told.times):
        for name, pair in {**PAIRS, "readers of the store": (LOOP, None)}.items():
            if [name, number] in trials:
                continue
            after = random.Random(f"{name} {number}").choice([0.0, 1.0]) * number * seconds / told.times  # noqa: S311
            new = new_project(folder / "new")
            target = folder / "pair"
            project = with_finished(new, finished, target) if name.startswith("exports of a") else copy_of(new, target)
            first, second = pair
            ended = both(project, first, read_store if second is None else in_log_of_its_own(second), after)
            wrong = problems(project, [first] if second is None else [first, second], ended, expected)
            fate = "one refused" if any(one.code for one in ended) else "both through"
            trials.add([name, number], held=not wrong, why="; ".join(wrong) or fate, after=round(after, 1))
    trials.report(lambda trial: trial[0])


if __name__ == "__main__":
    main()
