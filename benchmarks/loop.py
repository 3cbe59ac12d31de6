"""Does adapting the mixture pay? The default run against the same training on the prior mixture, over seeds.

All arms of a seed share initial weights, data order and the first round; they differ in the mixtures after it.
Scored on all evaluation items. Arms run one thread each, as many at a time as there are cores: they are compared by
score, not by time. Results are kept in `--folder`, and a stopped benchmark goes on from there.

    make bench NAME=loop
    python benchmarks/loop.py --seeds 5 --folder loop --arm identity influence.curvature=identity
"""

import argparse
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from common import machine, print_figures, print_table
from project import kedro_run, scratch_project

PRIOR = ["tikmix.strategy=prior"]


def final_scores(project: Path, experiment: str) -> pd.Series:
    """Bits per byte of the tasks' answers after the last round."""
    table = pd.read_parquet(project / "data" / "07_model_output" / experiment / "final_evaluation.parquet")
    answers = table[(table["kind"] == "task") & (table["measure"] == "answer")]
    return answers.set_index("name")["bits_per_byte"]


def run(project: Path, *arguments: str, threads: int | None = None) -> None:
    """Run Kedro to its end, with its output kept in a log of the project."""
    name = arguments[-1].split(",")[0].removeprefix("experiment=")
    with (project / f"{name}.log").open("ab") as log:
        if kedro_run(project, *arguments, threads=threads, log=log).wait():
            raise SystemExit(f"`kedro run {' '.join(arguments)}` failed: see {log.name}")


def run_arms(project: Path, arms: dict[str, list[str]], seeds: int) -> None:
    """Run every arm for every seed."""
    run(project, "--pipelines", "corpus")
    jobs = [
        ",".join([f"experiment={arm}-{seed}", f"seed={seed}", "tikmix.verdict=false", *overrides])
        for seed in range(seeds)
        for arm, overrides in arms.items()
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: run(project, "--params", job, threads=1), jobs))


def report(project: Path, arms: dict[str, list[str]], seeds: int) -> dict[str, float]:
    """Print each arm's paired difference to the prior; return the figures."""
    prior = pd.DataFrame([final_scores(project, f"prior-{seed}") for seed in range(seeds)])
    print("\nBits per byte of the gold answers, arm minus prior, seed by seed (negative: the arm is better)")
    rows, figures = [], {"prior_mean_bpb": float(prior.mean(axis=None))}
    for arm in arms:
        scores = pd.DataFrame([final_scores(project, f"{arm}-{seed}") for seed in range(seeds)])
        difference = scores - prior
        means = difference.mean(axis=1).tolist()
        if arm != "prior":
            rows += [
                [f"{arm} {seed}", *(f"{v:+.4f}" for v in row), f"{means[seed]:+.4f}"]
                for seed, row in enumerate(difference.to_numpy())
            ]
            figures[f"{arm}_minus_prior_bpb"] = statistics.mean(means)
            figures[f"{arm}_standard_deviation"] = statistics.stdev(means) if seeds > 1 else float("nan")
    print_table(["", *prior.columns, "mean of tasks"], rows)
    return figures


def main() -> None:
    """Run the arms and print the differences with their spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--arm", action="append", nargs="+", default=[], metavar="NAME OVERRIDE")
    options = parser.parse_args()
    arms = {"adaptive": [], **{name: overrides for name, *overrides in options.arm}, "prior": PRIOR}
    print(machine("torch"))
    with tempfile.TemporaryDirectory() as scratch:
        project = scratch_project((options.folder or Path(scratch)).resolve() / "project")
        run_arms(project, arms, options.seeds)
        print_figures(report(project, arms, options.seeds))


if __name__ == "__main__":
    main()
