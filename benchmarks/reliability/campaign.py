"""What the campaign's scripts share: small runs, what they leave, and trials that a stopped script goes on from.

A project of its own stands in `--folder`, with the environment `campaign`: text made here (three domains and two tasks,
each with words of its own), a model of the smoke size, two rounds, everything else as by default. Everything is a
process of the real command line.
"""

import argparse
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import print_figures, print_table
from project import REPOSITORY, scratch_project
from tikmix_pipeline.files import sha256_of_file

ENVIRONMENT = "campaign"
_MARK = "TIKMIX_CAMPAIGN"
LETTERS = {"code": "abcdef", "prose": "ghijkl", "verse": "mnopqr"}
TASKS = {"quiz": "code", "riddle": "prose"}
_TOLD: dict[str, Any] = {
    "model": {"preset": "llama-tiny"},
    "train": {
        "chunk_tokens": 4096,
        "batch_size": 8,
        "context": 32,
        "warmup_tokens": 1024,
        "decay_tokens": 1024,
        "evaluation_items": 8,
        "evaluation_windows": 4,
        "save_every_steps": 2,
    },
    "influence": {"tokens": 512, "items_per_task": 8, "factor_tokens": 512, "micro_batches": 4, "rebalance_steps": 2},
    "tikmix": {"rounds": 2},
    "corpus": {
        "name": "made",
        "domains": {name: {"sources": [{"kind": "files", "path": f"texts/{name}.jsonl"}]} for name in LETTERS},
        "tasks": {name: {"sources": [{"kind": "files", "path": f"texts/{name}.jsonl"}]} for name in TASKS},
        "tokenizer": {"vocabulary_size": 300, "training_megabytes": 1.0},
        "heldout_fraction": 0.1,
        "max_megabytes": None,
    },
    "validate": {"tokens": 1024, "replicates": 1, "items": 8, "workers": 2},
    "sweep": {
        "response": "lookahead",
        "design": "latin_hypercube",
        "candidates": 12,
        "branch_tokens": 1024,
        "items": 8,
        "workers": 2,
    },
    "remix": {"chunk_tokens": 65536, "consumed": 32768},
    "compare": {"arms": ["proportional", "unimax", "direct"], "seeds": 1, "workers": 2},
}


@dataclass(frozen=True)
class Pipeline:
    """One of the commands that the campaign disturbs.

    Attributes:
        name: of the pipeline, or of the command where a pipeline has several.
        experiment: the folder that it writes.
        parameters: what it is told on the command line besides.
        on_loop: whether the loop must have ended before.
        pipeline: its name, where that is another one.
        host: what it takes for its host's name; it then locks files without asking anybody, as a file system does it
            that holds locks on one host alone.
    """

    name: str
    experiment: str
    parameters: str = ""
    on_loop: bool = True
    pipeline: str | None = None
    host: str = ""

    def arguments(self) -> list[str]:
        """Return what stands behind `kedro run`."""
        told = f"experiment={self.experiment}" + (f",{self.parameters}" if self.parameters else "")
        return ["--env", ENVIRONMENT, "--pipelines", self.pipeline or self.name, "--params", told]


PIPELINES = {
    one.name: one
    for one in (
        Pipeline("tikmix", "loop", on_loop=False),
        Pipeline("sweep", "loop", "round=0"),
        Pipeline("validate", "loop", "round=0"),
        Pipeline("compare", "compared"),
        Pipeline("remix", "remixed", "model.checkpoint=data/06_models/loop/round_1,corpus.name=made"),
        Pipeline("ranks", "shared", "train.world_size=2", on_loop=False, pipeline="tikmix"),
    )
}

DIFFERS = (".recipe.json", ".key.json", ".lock", ".log", "surrogate.skops")
"""Endings of what may differ between two runs of equal bits: records name when and where, logs what was resumed, and a
scikit-learn estimator in skops' format holds times and places in memory."""


def options(description: str, choices: Mapping[str, Sequence[str]] | None = None, **numbers: int) -> argparse.Namespace:
    """Read `--folder`, `--pipelines`, some of each of `choices`, by default all, and a number for each of `numbers`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "data" / "reliability")
    for name, possible in {"pipelines": list(PIPELINES), **(choices or {})}.items():
        parser.add_argument(f"--{name}", nargs="+", choices=possible, default=possible)
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args()


def new_project(folder: Path) -> Path:
    """Lay out a project with the environment of the campaign, if it is not there."""
    if not (folder / "conf" / ENVIRONMENT).exists():
        scratch_project(folder)
        _make_texts(folder / "texts")
        (folder / "conf" / ENVIRONMENT).mkdir()
        (folder / "conf" / ENVIRONMENT / "parameters.yml").write_text(yaml.safe_dump(_TOLD))
    return folder


def _make_texts(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    generator = random.Random(0)  # noqa: S311
    words = {name: ["".join(generator.choices(part, k=5)) for _ in range(200)] for name, part in LETTERS.items()}

    def sentence(name: str, length: int) -> str:
        return " ".join(generator.choices(words[name], k=length))

    for name in LETTERS:
        _write_lines(folder / f"{name}.jsonl", [{"text": sentence(name, 120)} for _ in range(150)])
    for task, name in TASKS.items():
        items = [{"question": sentence(name, 8), "answer": sentence(name, 3)} for _ in range(40)]
        _write_lines(folder / f"{task}.jsonl", items)


def _write_lines(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def copy_of(project: Path, folder: Path) -> Path:
    """Copy a project to a place of its own, in place of what is there; the downloads stay a link."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(project, folder, symlinks=True)
    return folder


@dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str
    seconds: float
    left: list[int] = field(default_factory=list)
    """Processes that it left behind, ten seconds after its end."""

    @property
    def is_told(self) -> bool:
        """Whether nothing that it printed is a traceback."""
        return "Traceback (most recent call last)" not in self.output


def run(
    project: Path,
    pipeline: Pipeline,
    disturb: Callable[["subprocess.Popen[bytes]"], None] | None = None,
    *,
    limit: float = 900,
    log: str = "last.log",
) -> Ended:
    """Run a command in a session of its own, let `disturb` do something to it, and wait for its end.

    One that takes longer than `limit` seconds is ended by SIGKILL and has the code -9. What it prints goes to `log`.
    """
    mark = uuid.uuid4().hex
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", _MARK: mark}
    variables.pop("MLFLOW_TRACKING_URI", None)
    if pipeline.host:
        first = str(_host(project, pipeline.host))
        variables["PYTHONPATH"] = os.pathsep.join([first, *filter(None, [os.environ.get("PYTHONPATH")])])
    start = time.perf_counter()
    with (project / log).open("wb") as output:
        command = [sys.executable, "-m", "kedro", "run", *pipeline.arguments()]
        running = subprocess.Popen(
            command, cwd=project, env=variables, stdout=output, stderr=output, start_new_session=True
        )
        if disturb is not None:
            disturb(running)
        try:
            running.wait(limit)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
    seconds = time.perf_counter() - start
    left = _left(mark)
    for process in left:
        os.kill(process, signal.SIGKILL)
    said = (project / log).read_text(encoding="utf-8", errors="replace")
    return Ended(running.returncode, said, seconds, left)


def _host(project: Path, name: str) -> Path:
    """Return a folder with what makes a Python process one of another host."""
    folder = project / "hosts" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        f"import fcntl, socket\nsocket.gethostname = lambda: {name!r}\nfcntl.flock = lambda *_: None\n"
    )
    return folder


def _left(mark: str, seconds: float = 10) -> list[int]:
    """Return which processes that were started under a mark are there `seconds` later."""
    deadline = time.monotonic() + seconds
    while (found := list(_marked(mark))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes() and b") Z " not in (folder / "stat").read_bytes():
                yield int(folder.name)
        except OSError:
            continue


def digests(project: Path, experiment: str | None = None) -> dict[str, str]:
    """Return the SHA-256 of every artifact of a project, or of one experiment and the corpora, by its path."""
    data = project / "data"
    return {
        str(file.relative_to(data)): sha256_of_file(file)
        for file in sorted(data.rglob("*"))
        if file.is_file()
        and not file.name.endswith(DIFFERS)
        and "01_raw" not in file.parts
        and (experiment is None or experiment in file.parts or "03_primary" in file.parts)
    }


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return what is not the same in both."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def running_in_mlflow(project: Path) -> int:
    """Count the runs that MLflow takes for running."""
    store = project / "mlflow.db"
    if not store.exists():
        return 0
    with contextlib.closing(sqlite3.connect(store)) as connection:
        (count,) = connection.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
    return int(count)


class Trials:
    """Results of trials, one JSON line each; a script that is started again makes only those that are missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"This script is at work in {path.parent} already.") from None
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.results = {json.dumps(one["trial"]): one for one in map(json.loads, lines)}

    def __contains__(self, trial: object) -> bool:
        return json.dumps(trial) in self.results

    def add(self, trial: object, *, held: bool, why: str = "", **figures: object) -> None:
        """Keep how a trial went, and say so."""
        result = {"trial": trial, "held": held, "why": why, **figures}
        self.results[json.dumps(trial)] = result
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(result) + "\n")
        print(f"{'held' if held else 'FAILED'} {trial} {why}", flush=True)

    def report(self, kind: Callable[[Any], str]) -> None:
        """Print tried and held for each kind of trial, what failed and why, and the figures."""
        kinds: dict[str, list[bool]] = {}
        for result in self.results.values():
            kinds.setdefault(kind(result["trial"]), []).append(result["held"])
        print_table(["", "tried", "held"], [[name, str(len(all_)), str(sum(all_))] for name, all_ in kinds.items()])
        for result in self.results.values():
            if not result["held"]:
                print(f"{result['trial']}: {result['why']}")
        held = sum(result["held"] for result in self.results.values())
        print_figures({"tried": len(self.results), "held": held, "failed": len(self.results) - held})


def reference(folder: Path, pipeline: Pipeline) -> tuple[Path, float]:
    """Return a project in which a pipeline has run undisturbed, and how long it took in seconds; made once."""
    before = new_project(folder / "new") if not pipeline.on_loop else reference(folder, PIPELINES["tikmix"])[0]
    project = folder / pipeline.name
    note = project / "seconds.json"
    if not note.exists():
        copy_of(before, project)
        note.unlink(missing_ok=True)  # that of the loop
        ended = run(project, pipeline)
        if ended.code:
            raise SystemExit(f"{pipeline.name} failed undisturbed:\n{ended.output[-4000:]}")
        note.write_text(json.dumps(ended.seconds))
    return project, json.loads(note.read_text())
