"""Every write made to fail once, or all from one on, and a disk that is really full.

    make bench NAME=reliability/disks
    python benchmarks/reliability/disks.py --writes 40 --folder FOLDER
    python benchmarks/reliability/disks.py --of-each-kind 1 --folder FOLDER

A library put before the C library (`failing_disk.c`; needs a C compiler and Linux) counts what changes files under
`data` in an undisturbed loop: opening to write, writing, renaming, removing, syncing, making folders, by Python, Rust
and C++ alike. Then, for `--writes` of those calls at even distances (0: all of them), the loop is run from nothing with
that one failing by ENOSPC, EIO, EACCES and EROFS in turn, every other time with all writes after it failing too. Most
calls are one of a few that are made many times, so `--of-each-kind` takes so many of each kind in the place of
`--writes`, in random order: a kind is what is done to which file, whatever its domain, task, round and process.

A trial has held if the run went on, or ended by a message without a traceback, and if the next start, on a sound disk,
ends in the bits of an undisturbed run and leaves no other file. Where the machine lets this process mount one, the loop
then runs on a tmpfs that is too small, which is enlarged after its end. Figures: `tried`, `held`, `failed`.
"""

import argparse
import ctypes
import errno
import mmap
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign import (
    LETTERS,
    PIPELINES,
    TASKS,
    Ended,
    Trials,
    copy_of,
    differing,
    digests,
    new_project,
    options,
    reference,
    run,
)
from served import preload, serve

ERRORS = ("ENOSPC", "EIO", "EACCES", "EROFS")
LOOP = PIPELINES["tikmix"]


class Control:
    """What the library is told, in memory that all processes share."""

    def __init__(self, path: Path) -> None:
        if not path.exists():  # what other processes map must not be cut
            path.write_bytes(bytes(6 * 8))
        with path.open("r+b") as stream:
            self._words = (ctypes.c_int64 * 6).from_buffer(mmap.mmap(stream.fileno(), 6 * 8))

    def arm(self, at: int, error: int = 0, *, forever: bool = False) -> None:
        """Let the call number `at` fail from now on; 0 counts them."""
        self._words[:] = [1, 0, at, error, int(forever), 0]

    def disarm(self) -> tuple[int, int]:
        """Let nothing fail; return how many calls were counted, and how many failed."""
        self._words[0] = 0
        return self._words[1], self._words[5]


def with_library(folder: Path) -> None:
    """Start this script again with the library before the C library, unless it is."""
    if "FAIL_CONTROL" in os.environ:
        return
    library, control = folder / "failing_disk.so", folder / "control"
    source = Path(__file__).with_suffix("").with_name("failing_disk.c")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
    Control(control)
    variables = {
        "LD_PRELOAD": str(library),
        "FAIL_CONTROL": str(control),
        "FAIL_UNDER": str(folder / "disturbed" / "data"),
        "FAIL_LOG": str(folder / "calls.log"),
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **variables})  # noqa: S606


def problems(ended: Ended, project: Path, expected: dict[str, str]) -> list[str]:
    """Start again on a sound disk; say what is wrong with either end."""
    found = [] if ended.is_told else ["traceback: " + ended.output[-300:]]
    if ended.code and "Error: " not in ended.output:
        found.append(f"exit code {ended.code} without a message: {ended.output[-300:]}")
    again = serve(project, LOOP)
    unequal = differing(expected, digests(project))
    if again.code:
        found.append(f"the next start ended with {again.code}: {again.output[-300:]}")
    elif unequal:
        found.append(f"other bits: {', '.join(unequal[:4])}")
    return found


@dataclass(frozen=True)
class Failure:
    """What fails: the call number `at` of a run, from 1, by an error of `errno`, and all after it if `forever`."""

    at: int
    error: str
    forever: bool

    @property
    def key(self) -> list[Any]:
        """The name of its trial."""
        return [self.error, "all from" if self.forever else "one", self.at]


def at_even_distances(total: int, writes: int) -> list[Failure]:
    """Return failures of so many of `total` calls, of all for 0; errors take turns."""
    count = min(writes, total) or total
    return [
        Failure(1 + number * total // count, ERRORS[number % len(ERRORS)], number // len(ERRORS) % 2 == 1)
        for number in range(count)
    ]


def of_each_kind(calls: Sequence[str], count: int) -> list[Failure]:
    """Return failures of so many calls of each kind, picked and shuffled at random.

    Args:
        calls: lines of the library's log: a call's number, what it does, and the file.
        count: how many of each kind, if there are as many.
    """
    kinds: dict[str, list[int]] = {}
    for call in calls:
        at, what = call.split(maxsplit=1)
        kinds.setdefault(_kind(what), []).append(int(at))
    chance = random.Random(0)  # noqa: S311
    found = [at for of_kind in kinds.values() for at in chance.sample(of_kind, min(count, len(of_kind)))]
    chance.shuffle(found)
    return [Failure(at, chance.choice(ERRORS), chance.random() < 0.5) for at in found]


def _kind(call: str) -> str:
    """Return what a call does to which file, without what differs between domains, tasks, rounds and processes."""
    names = "|".join([*LETTERS, *TASKS])
    return re.sub(r"\d+", "0", re.sub(rf"\.tmp\w{{6}}\b|\b({names})\b", "NAME", call))


def fail_writes(folder: Path, told: argparse.Namespace, trials: Trials) -> None:
    """Make writes fail, one after the other."""
    control = Control(Path(os.environ["FAIL_CONTROL"]))
    log = Path(os.environ["FAIL_LOG"])
    new = new_project(folder / "new")
    preload(new)
    project = folder / "disturbed"
    copy_of(new, project)
    control.arm(0)
    log.unlink(missing_ok=True)
    undisturbed = serve(project, LOOP)
    total, _ = control.disarm()
    if undisturbed.code:
        raise SystemExit(f"the loop failed undisturbed:\n{undisturbed.output[-2000:]}")
    shutil.copyfile(log, folder / "all_calls.log")
    expected = digests(project)
    print(f"{total} calls change files", flush=True)
    if told.of_each_kind:
        failures = of_each_kind((folder / "all_calls.log").read_text(encoding="utf-8").splitlines(), told.of_each_kind)
    else:
        failures = at_even_distances(total, told.writes)
    print(f"{len(failures)} of them are to fail", flush=True)
    for failure in failures:
        if failure.key in trials:
            continue
        copy_of(new, project)
        log.unlink(missing_ok=True)
        control.arm(failure.at, getattr(errno, failure.error), forever=failure.forever)
        ended = serve(project, LOOP)
        _, failed = control.disarm()
        what = log.read_text(encoding="utf-8").splitlines()[0] if failed else "not reached"
        wrong = problems(ended, project, expected)
        trials.add(failure.key, held=not wrong, why="; ".join([what.replace(str(folder), ""), *wrong]), code=ended.code)


def fill_disk(folder: Path, trials: Trials) -> None:
    """Run on a real disk that is too small, which is made larger after the run has ended."""
    expected = digests(reference(folder, LOOP)[0])
    disk = folder / "small_disk"
    for megabytes in (1, 2, 4, 6, 8, 10):
        key = ["tmpfs", "all from", megabytes]
        if key in trials:
            continue
        disk.mkdir(exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)], check=False, capture_output=True
        )
        if mounted.returncode:
            print(f"No small disk was tried: mounting one is not permitted here ({mounted.stderr.decode().strip()})")
            return
        try:
            project = copy_of(new_project(folder / "new"), disk / "project")
            ended = run(project, LOOP)
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            wrong = problems(ended, project, expected)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
        trials.add(key, held=not wrong, why="; ".join(wrong), code=ended.code)


def main() -> None:
    """Fail, start again, compare and count."""
    told = options(__doc__, writes=400, of_each_kind=0)
    folder = told.folder.resolve() / "disks"
    with_library(folder)
    trials = Trials(folder / "disks.jsonl")
    fail_writes(folder, told, trials)
    fill_disk(folder, trials)
    trials.report(lambda trial: f"{trial[0]}, {trial[1]}")


if __name__ == "__main__":
    main()
