"""Does adapting the mixture pay? The default run against the same training on the prior mixture, over seeds.

Both arms share initial weights, data order and the first round; they differ in the mixture of rounds 1 and 2. Scored on
all evaluation items. `strategies` on the command line adds overrides, for instance:

    make bench NAME=loop
    python benchmarks/loop.py --seeds 5 --folder /path/to/keep --override influence.curvature=identity

Results are kept in `--folder`, and a stopped benchmark goes on from there.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import pandas as pd

from common import machine, print_figures, print_table
from project import kedro_run, scratch_project


def final_scores(project: Path, experiment: str) -> pd.Series:
    """Bits per byte of the tasks' answers after the last round."""
    table = pd.read_parquet(project / "data" / "07_model_output" / experiment / "final_evaluation.parquet")
    answers = table[(table["kind"] == "task") & (table["measure"] == "answer")]
    return answers.set_index("name")["bits_per_byte"]


def run_arms(project: Path, arms: dict[str, list[str]], seed: int) -> None:
    """Run the arms of one seed side by side, one thread each: they are compared by score, not by time."""
    running = []
    for arm, overrides in arms.items():
        parameters = ",".join([f"experiment={arm}-{seed}", f"seed={seed}", *overrides])
        running.append(kedro_run(project, "--params", parameters, threads=1))
    for process in running:
        if process.wait():
            raise SystemExit(f"an arm of seed {seed} failed")


def main() -> None:
    """Run both arms for each seed; print differences with their spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--override", action="append", default=[])
    options = parser.parse_args()
    print(machine("torch"))
    with tempfile.TemporaryDirectory() as scratch:
        project = scratch_project((options.folder or Path(scratch)) / "project")
        arms = {"adaptive": options.override, "prior": ["tikmix.strategy=prior"]}
        if kedro_run(project, "--pipelines", "corpus").wait():
            raise SystemExit("the corpus could not be made")
        rows, differences, relative = [], [], []
        for seed in range(options.seeds):
            run_arms(project, arms, seed)
            adaptive, prior = (final_scores(project, f"{arm}-{seed}") for arm in arms)
            difference = (adaptive - prior).rename(f"seed {seed}")
            rows.append(difference)
            differences.append(float(difference.mean()))
            relative.append(float(adaptive.mean() / prior.mean() - 1))
    table = pd.DataFrame(rows)
    print("Bits per byte of the gold answers, adaptive minus prior (negative: adaptive is better)")
    header = ["", *table.columns, "mean of tasks"]
    print_table(
        header,
        [[name, *(f"{v:+.4f}" for v in row), f"{row.mean():+.4f}"] for name, row in table.iterrows()],
    )
    print_figures(
        {
            "mean_difference_bpb": statistics.mean(differences),
            "standard_deviation_bpb": statistics.stdev(differences) if len(differences) > 1 else 0.0,
            "relative_difference": statistics.mean(relative),
        }
    )


if __name__ == "__main__":
    main()
