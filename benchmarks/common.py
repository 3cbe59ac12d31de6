"""What the benchmarks share: the machine they ran on, processes of their own, tables, and figures to parse."""

import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TABLES = Path(__file__).resolve().parents[1] / "docs" / "results" / "tables"
"""The stored tables that docs/results.md is printed from."""


def machine(*packages: str) -> str:
    """Describe processor, usable cores, load, Python and the versions of `packages` in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    load = os.getloadavg()[0]
    return f"{model}, {cores} cores, load {load:.1f}, Python {platform.python_version()}, {versions}"


def run_alone(script: str, *options: str) -> dict[str, float]:
    """Run a script of ours in a process of its own; return what its last line of output says."""
    command = [sys.executable, "-W", "ignore", script, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(options)} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far, without that of the process that started it.

    `ru_maxrss` begins at the peak of the parent, and counts bytes on macOS but KiB on Linux.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def restart_peak() -> None:
    """Let `peak_bytes` count from now on, where the system can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def markdown_header(names: Sequence[str]) -> list[str]:
    """Return the first two lines of a table in Markdown."""
    return [markdown_row(names), markdown_row(["---"] * len(names))]


def markdown_row(cells: Sequence[str]) -> str:
    """Return a line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as their widest cell, the first one to the left and the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for first, *others in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def print_figures(figures: Mapping[str, float]) -> None:
    """Print the named figures as one JSON object; call this last."""
    print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}), flush=True)


def spread(values: Sequence[float], template: str = "{:.3g}") -> str:
    """Format the median of repetitions with their range."""
    middle, low, high = (template.format(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} - {high})"
