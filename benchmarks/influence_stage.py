"""One timed stage of the influence benchmark in a process of its own, the same way in both environments.

A stage is a script that takes the options below, does its imports, loads what it needs, warms PyTorch up, and only then
runs its timed steps. Its last line of output is one JSON object.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def stage_arguments(description: str | None, stages: list[str]) -> argparse.Namespace:
    """Parse the options of a stage and set the number of threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=stages)
    parser.add_argument("folder", type=Path, help="where the experiment lies and results go")
    parser.add_argument("--strategy", default="kfac", help="name of the curvature")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--parts", type=int, default=4, help="ours only: parts of a set for the standard error")
    parser.add_argument("--repetitions", type=int, default=3, help="of what is interleaved inside the process")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def peak_megabytes() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_steps(steps: Mapping[str, Callable[[], object]]) -> dict[str, object]:
    """Run the steps in order; return the wall seconds of each, the sum, processor seconds and peak memory."""
    before, processor = peak_megabytes(), time.process_time()
    seconds = {}
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - start
    return {
        "seconds": sum(seconds.values()),
        "steps": seconds,
        "cpu_seconds": time.process_time() - processor,
        "megabytes": peak_megabytes(),
        "megabytes_before": before,
    }


def print_result(result: Mapping[str, object]) -> None:
    """Hand the result to the process that started the stage; call this last."""
    print(json.dumps(result), flush=True)
