"""Many rounds of one loop: whether memory, open files and disk stay flat from round to round.

    make bench NAME=reliability/long
    python benchmarks/reliability/long.py --rounds 50 --folder FOLDER

While the loop runs, its memory (resident, of the process and its children) and its open files are noted five times a
second, with the round that is under way. Afterwards it is told what each round takes on disk: its checkpoint, which is
kept on purpose, all else below `data`, and what the MLflow store grew by. Figures, of the last fifth of the rounds over
the second fifth (the first one warms up): `memory`, `open_files`, `seconds`, `checkpoint`, `other_files`, `store`; flat
is 1. The finished run is kept; started again, the script prints its figures.
"""

import dataclasses
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from campaign import PIPELINES, copy_of, new_project, options, run

from common import print_figures, print_table

LOOP = PIPELINES["tikmix"]


def watched(project: Path, rounds: int) -> list[dict[str, Any]]:
    """Run the loop; return what was noted, sample by sample."""
    samples: list[dict[str, Any]] = []
    models = project / "data" / "06_models" / LOOP.experiment

    def disturb(running: "subprocess.Popen[bytes]") -> None:
        number = 0
        while running.poll() is None:
            while (models / f"round_{number}.recipe.json").exists():
                number += 1
            sample = {"round": number, "at": time.monotonic(), **_taken(running.pid)}
            samples.append(sample | {"store": _size(project / "mlflow.db") + _size(project / "mlartifacts")})
            time.sleep(0.2)

    ended = run(project, dataclasses.replace(LOOP, parameters=f"tikmix.rounds={rounds}"), disturb, limit=4 * 3600)
    if ended.code:
        raise SystemExit(f"the loop failed:\n{ended.output[-3000:]}")
    return samples


def _taken(process: int) -> dict[str, int]:
    """Return resident memory in bytes and the number of open files of a process and its children."""
    memory = files = 0
    for each in [process, *_children(process)]:
        try:
            status = Path(f"/proc/{each}/status").read_text(encoding="utf-8").splitlines()
            memory += next((int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:")), 0)
            files += len(list(Path(f"/proc/{each}/fd").iterdir()))
        except OSError:
            continue
    return {"memory": memory, "open_files": files}


def _children(process: int) -> list[int]:
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [int(one) for one in found] + [other for one in found for other in _children(int(one))]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def by_round(project: Path, samples: list[dict[str, Any]], rounds: int) -> list[dict[str, float]]:
    """Return what each round took."""
    data, experiment = project / "data", LOOP.experiment
    found = []
    for number in range(rounds):
        own = [sample for sample in samples if sample["round"] == number]
        if not own:
            continue
        checkpoint = _size(data / "06_models" / experiment / f"round_{number}")
        output = data / "07_model_output" / experiment / f"round_{number}"
        figure = data / "08_reporting" / experiment / f"round_{number}_influence.png"
        found.append(
            {
                "round": number,
                "memory": max(sample["memory"] for sample in own),
                "open_files": max(sample["open_files"] for sample in own),
                "seconds": own[-1]["at"] - own[0]["at"],
                "checkpoint": checkpoint,
                "other_files": _size(output) + _size(figure),
                "store": own[-1]["store"] - own[0]["store"],
            }
        )
    return found


def main() -> None:
    """Run, and print a table and the figures."""
    told = options(__doc__, rounds=50)
    folder = told.folder.resolve() / f"long-{told.rounds}"
    noted = folder / "rounds.json"
    if not noted.exists():
        project = copy_of(new_project(folder / "new"), folder / "project")
        found = by_round(project, watched(project, told.rounds), told.rounds)
        noted.write_text(json.dumps(found), encoding="utf-8")
    rounds = json.loads(noted.read_text(encoding="utf-8"))
    names = [name for name in rounds[0] if name != "round"]
    rows = [[str(one["round"]), *(f"{one[name]:.4g}" for name in names)] for one in rounds]
    print_table(["round", *names], rows)
    fifth = max(1, len(rounds) // 5)
    early, late = rounds[fifth : 2 * fifth], rounds[-fifth:]
    medians = {name: [statistics.median(one[name] for one in part) for part in (early, late)] for name in names}
    print_figures({name: last / first if first else float("nan") for name, (first, last) in medians.items()})


if __name__ == "__main__":
    main()
