"""Our Group Influence against kronfluence 1.0.1, in time, memory and result, and against a forward and backward pass.

    make bench NAME=influence

One trained model, K = 6 domains and T = 4 tasks (`influence_model.py`). Both sides compute the same T x K matrix, from
factors of the same strategy over the same linear layers (kronfluence knows no others) fitted on the same sequences.
Labels are sampled, as kronfluence has it. `default` is this library as it comes, K-FAC fitted with the labels of
`influence.factor_tokens` of the text, held against kronfluence's `ekfac`.
Kronfluence (`influence_kronfluence.py`, in an environment of its own) takes its fastest route, all pairs of sequences
at once and then means over groups, and its route of one aggregated query per task. Ours (`influence_ours.py`) fits
factors, measures the mean gradients of all parts of all sets, those of the domains in the same pass, and takes their
products.

Every stage runs in a process of its own, one at a time, with as many threads on either side, timed inside the process
after imports, loading and a warm-up. Each is first run once per batch size, to find its fastest (a batch of our
gradients is never larger than a part of a set); then all take turns, repetition after repetition. Speed-ups are medians
over the repetitions of kronfluence's factors + scores over our whole measurement, and without factors on either side.

- `agreement_with_kronfluence`: with kronfluence's saved factors, the largest difference of the matrices over the
  largest entry; `agreement_own_factors_spearman`: with the factors of either side, their rank correlation.
- `kfac_over_forward_backward`, and likewise with the empirical Fisher, `adam` and `identity`: the whole stage of ours,
  on all parameters, over one plain forward and backward pass over the same batches, taking turns in one process. The
  factors of `kfac` are fitted on all domain sequences too; those of `kfac_default` as they come, on a sixth of them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import machine, print_figures, print_table, spread

HERE = Path(__file__).parent
KRONFLUENCE = HERE.parent / ".venv-kronfluence" / "bin" / "python"
PEER_STRATEGIES = {"ekfac": "ekfac", "kfac": "kfac", "default": "ekfac"}
"""Ours, and what it is held against; `default` is what a user gets, who has `ekfac` from kronfluence."""
OURS, PEER = "ours", "kronfluence"
STAGES = {PEER: ("factors", "fastest", "aggregated"), OURS: ("whole", "matrix")}
ROUTES = STAGES[PEER][1:]

Result = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One process: a side's stage with a strategy."""

    side: str
    strategy: str
    name: str


@dataclass
class Runner:
    """Starts stages, one at a time."""

    folder: Path
    threads: int
    parts: int
    batch_sizes: dict[Stage, int] = field(default_factory=dict)

    def run(self, stage: Stage, batch_size: int | None = None, repetitions: int = 1) -> Result:
        """Run a stage to its end; return what its last line of output says.

        The process that starts it holds no PyTorch: a child's peak of memory counts from that of its parent.
        """
        options = {
            "strategy": stage.strategy,
            "batch-size": batch_size or self.batch_sizes.get(stage, 32),
            "parts": self.parts,
            "repetitions": repetitions,
            "threads": self.threads,
        }
        python = sys.executable if stage.side == OURS else str(KRONFLUENCE)
        command = [python, "-W", "ignore", str(HERE / f"influence_{stage.side}.py"), stage.name, str(self.folder)]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{stage.side} {stage.strategy} {stage.name} failed:\n{done.stdout}{done.stderr}")
        result: Result = json.loads(done.stdout.splitlines()[-1])
        return result

    def tune(self, stages: list[Stage], batch_sizes: list[int]) -> None:
        """Keep the fastest batch size of every stage; a stage of factors leaves them for the next."""
        if len(batch_sizes) == 1:
            self.batch_sizes = dict.fromkeys(stages, batch_sizes[0])
            return
        for stage in stages:
            seconds = {size: self.run(stage, size)["seconds"] for size in batch_sizes}
            self.batch_sizes[stage] = min(seconds, key=seconds.__getitem__)
            tried = ", ".join(f"{size}: {value:.2f}" for size, value in seconds.items())
            print(f"{stage.side} {stage.strategy} {stage.name}: seconds by batch size {tried}", flush=True)


def total(results: Mapping[Stage, list[Result]], side: str, strategy: str, names: tuple[str, ...]) -> list[float]:
    """Add the seconds of stages, repetition by repetition."""
    columns = [[result["seconds"] for result in results[Stage(side, strategy, name)]] for name in names]
    return [sum(row) for row in zip(*columns, strict=True)]


def peak(results: Mapping[Stage, list[Result]], side: str, strategy: str, names: tuple[str, ...]) -> float:
    """Return the largest peak memory of stages, in MB."""
    return max(result["megabytes"] for name in names for result in results[Stage(side, strategy, name)])


def print_stages(results: Mapping[Stage, list[Result]], batch_sizes: Mapping[Stage, int]) -> None:
    """Print time and memory of every stage."""
    rows = []
    for stage, runs in results.items():
        steps = {name: statistics.median(run["steps"][name] for run in runs) for name in runs[0]["steps"]}
        rows.append(
            [
                f"{stage.side} {stage.strategy} {stage.name}",
                str(batch_sizes[stage]),
                spread([run["seconds"] for run in runs], "{:.2f}"),
                f"{statistics.median(run['cpu_seconds'] for run in runs):.2f}",
                f"{max(run['megabytes'] for run in runs):.0f}",
                f"{max(run['megabytes_before'] for run in runs):.0f}",
                ", ".join(f"{name} {value:.2f}" for name, value in steps.items()),
            ]
        )
    header = ["stage", "batch", "wall s: median (range)", "CPU s", "peak MB", "before", "steps, wall s"]
    print_table(header, rows)


def compare(results: Mapping[Stage, list[Result]]) -> dict[str, float]:
    """Print the speed-ups over kronfluence, factors included and without; return the figures."""
    figures, rows = {}, []
    for strategy, peer_strategy in PEER_STRATEGIES.items():
        suffix = "" if strategy == "ekfac" else f"_{strategy}"
        figures[f"peak_megabytes_ours{suffix}"] = peak(results, OURS, strategy, STAGES[OURS])
        for route in ROUTES:
            cells = []
            for ours, theirs in (("whole", ("factors", route)), ("matrix", (route,))):
                mine, other = total(results, OURS, strategy, (ours,)), total(results, PEER, peer_strategy, theirs)
                ratios = [their / our for our, their in zip(mine, other, strict=True)]
                cells += [spread(mine, "{:.2f}"), spread(other, "{:.2f}"), spread(ratios)]
                kind = "speedup" if ours == "whole" else "matrix_speedup"
                figures[f"{kind}_vs_kronfluence_{route}{suffix}"] = statistics.median(ratios)
            rows.append([f"{strategy}, {route}", *cells])
            figures[f"peak_megabytes_kronfluence_{route}{suffix}"] = peak(
                results, PEER, peer_strategy, ("factors", route)
            )
    names = ["ours s", "kronfluence s", "speed-up", "matrix s", "scores s", "speed-up"]
    print_table(["kronfluence's route", *names], rows)
    return figures


def agree(agreement: Result) -> dict[str, float]:
    """Print how far the matrices agree; return the figures."""
    figures = {}
    for strategy in PEER_STRATEGIES:
        suffix = "" if strategy == "ekfac" else f"_{strategy}"
        found = agreement[strategy]
        print(
            f"{strategy}: with kronfluence's factors, largest difference over largest entry "
            f"{found['difference']:.1e}; with own factors, Spearman over all entries {found['spearman']:.4f}, "
            f"mean over tasks {found['spearman_by_task']:.4f}, largest difference over largest entry "
            f"{found['own_difference']:.2g} after scaling"
        )
        figures[f"agreement_with_kronfluence{suffix}"] = found["difference"]
        figures[f"agreement_own_factors_spearman{suffix}"] = found["spearman"]
        figures[f"agreement_own_factors_spearman_by_task{suffix}"] = found["spearman_by_task"]
    return figures


def limit(result: Result) -> dict[str, float]:
    """Print the whole stage over a plain forward and backward pass; return the figures."""
    rows, figures = [], {}
    for name, pairs in result["pairs"].items():
        plain, whole = zip(*pairs, strict=True)
        ratios = [own / base for base, own in pairs]
        rows.append([name, spread(whole, "{:.2f}"), spread(plain, "{:.2f}"), spread(ratios)])
        figures[f"{name}_over_forward_backward"] = statistics.median(ratios)
    print_table(["whole stage, all parameters", "wall s: median (range)", "forward and backward s", "ratio"], rows)
    return figures


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64], help="to choose from")
    parser.add_argument("--parts", type=int, default=4, help="parts of every set, for standard errors; ours only")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def main() -> None:
    """Run the benchmark and print its tables and figures."""
    arguments = parse_arguments()
    if not KRONFLUENCE.is_file():
        raise SystemExit("kronfluence has no environment yet: make bench NAME=influence makes it.")
    print(f"{machine('torch', 'transformers')}; {arguments.threads} threads", flush=True)
    sides = [(OURS, strategy) for strategy in PEER_STRATEGIES]
    sides += [(PEER, strategy) for strategy in dict.fromkeys(PEER_STRATEGIES.values())]
    stages = [Stage(side, strategy, name) for side, strategy in sides for name in STAGES[side]]
    with tempfile.TemporaryDirectory() as name:
        runner = Runner(Path(name), arguments.threads, arguments.parts)
        runner.run(Stage(OURS, "", "prepare"))
        runner.tune(stages, arguments.batch_sizes)
        results: dict[Stage, list[Result]] = {stage: [] for stage in stages}
        for repetition in range(arguments.repetitions):
            for stage in stages:
                results[stage].append(runner.run(stage))
            taken = sum(runs[-1]["seconds"] for runs in results.values())
            print(f"repetition {repetition + 1}: all stages took {taken:.1f} s", flush=True)
        agreement = runner.run(Stage(OURS, "", "agreement"))
        alone = runner.run(Stage(OURS, "", "limit"), repetitions=arguments.repetitions)
    print_stages(results, runner.batch_sizes)
    print_figures(compare(results) | agree(agreement) | limit(alone))


if __name__ == "__main__":
    main()
