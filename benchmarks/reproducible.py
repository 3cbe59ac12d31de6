"""Whether equal parameters give equal bits: two runs from the sources on, and one that is killed and run again.

    make bench NAME=reproducible        (or: python benchmarks/reproducible.py)

Each run has a scratch project of its own, which shares nothing with this one but the downloads. In it, `kedro run
--env smoke` prepares the corpus and trains three rounds, as an experiment of its own name; chunks are 16 steps, with a
resume point every 4. The third run is ended by SIGKILL once round 1 has a resume point, and `kedro run
--only-missing-outputs` completes it.

Files are compared byte for byte. `mixtures.parquet` names the code that made it, so leave `src` alone meanwhile.
Figures: `two_runs_identical`, `killed_run_identical`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import machine, print_table
from project import kedro_run, scratch_project
from tikmix_pipeline.files import read_json, sha256_of_file

STEPS, INTERVAL = 16, 4

# what is compared: files below `data`, where {} is the experiment
ARTIFACTS = {
    "corpus": ["03_primary/smoke/**/*.*"],
    "weights, optimiser and stream of every round": ["06_models/{}/round_?/*.*"],
    "influence": ["07_model_output/{}/round_?/influence.parquet", "07_model_output/{}/round_?/measurement.json"],
    "mixtures": ["07_model_output/{}/mixtures.parquet", "07_model_output/{}/round_?/mixture.json"],
    "losses and scores": ["07_model_output/{}/round_?/train_log.parquet", "07_model_output/{}/**/*evaluation.parquet"],
}


def start_run(project: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Start a run as the experiment that the project is named for."""
    values = {
        "experiment": project.name,
        "train.chunk_tokens": STEPS * 16 * 256,
        "train.save_every_steps": INTERVAL,
    }
    parameters = ",".join(f"{key}={value}" for key, value in values.items())
    return kedro_run(project, "--env", "smoke", "--params", parameters, *options)


def complete_run(project: Path, *options: str) -> float:
    """Run to the end; return the seconds taken."""
    start = time.perf_counter()
    if start_run(project, *options).wait():
        sys.exit(f"the {project.name} run failed")
    return time.perf_counter() - start


def kill_inside_round_1(project: Path) -> int:
    """Run until round 1 has a resume point, and kill the process there; return the step of the resume point."""
    checkpoint = project / "data" / "06_models" / project.name / "round_1"
    resume = checkpoint.with_name("round_1.resume")
    # written last, so the resume point counts once it is there
    key = checkpoint.with_name("round_1.resume.key.json")
    run = start_run(project)
    while not key.exists():
        if run.poll() is not None:
            sys.exit("the run ended before it had a resume point in round 1")
        time.sleep(0.002)
    run.kill()
    run.wait()
    assert key.exists(), "the process was killed too late: while it wrote the next resume point"
    assert not checkpoint.exists(), "the process was killed too late: round 1 was complete"
    return int(read_json(resume / "training_state.json")["step"])


def contents(project: Path, patterns: list[str]) -> dict[str, str]:
    """Return the SHA-256 of the files that match, by their path without the experiment's name."""

    def files() -> Iterator[Path]:
        for pattern in patterns:
            yield from (project / "data").glob(pattern.format(project.name))

    return {
        str(file.relative_to(project / "data")).replace(project.name, "{}"): sha256_of_file(file)
        for file in sorted(set(files()))
        if file.is_file() and not file.name.endswith((".recipe.json", ".key.json"))
    }


def compare(reference: Path, others: list[Path]) -> list[bool]:
    """Print which kinds of files are the same in the others as in the reference; return for each if all are."""
    rows, identical = [], [True] * len(others)
    differing: list[str] = []
    for kind, patterns in ARTIFACTS.items():
        expected = contents(reference, patterns)
        assert expected, f"no files of {kind}"
        row = [kind, str(len(expected))]
        for number, other in enumerate(others):
            found = contents(other, patterns)
            unequal = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
            identical[number] &= not unequal
            row.append(f"{len(unequal)} differ" if unequal else "identical")
            differing += [f"{other.name}: {name}" for name in sorted(unequal)]
        rows.append(row)
    print_table(["compared with the first run", "files", *(other.name for other in others)], rows)
    print("\n".join(differing), end="\n" if differing else "")
    return identical


def main() -> None:
    """Run the benchmark and print its table and figures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(machine("numpy", "torch", "transformers", "kedro"))
    # else the runs would be tracked in the user's store
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as name:
        first, second, killed = (scratch_project(Path(name) / one) for one in ("first", "second", "killed"))
        seconds = [complete_run(first), complete_run(second)]
        step = kill_inside_round_1(killed)
        seconds.append(complete_run(killed, "--only-missing-outputs"))
        print("Seconds: first run {:.0f}, second {:.0f}, completion of the killed one {:.0f}".format(*seconds))
        print(f"Killed with a resume point at step {step}, in round 1 (steps {STEPS} to {2 * STEPS})")
        two_runs, killed_run = compare(first, [second, killed])
    print(json.dumps({"two_runs_identical": two_runs, "killed_run_identical": killed_run}), flush=True)


if __name__ == "__main__":
    main()
