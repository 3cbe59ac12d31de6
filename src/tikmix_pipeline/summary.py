"""The table that a run ends with."""

from collections.abc import Mapping, Sequence
from typing import Any


def summary_table(summary: Mapping[str, Any], experiment: str) -> str:
    """Lay out mixtures, bits per byte and the last decision's expected gain for a terminal."""
    mixtures, scores = summary["mixtures"], summary["bits_per_byte"]
    rounds = [f"round {number}" for number in range(len(scores))]
    tasks, domains = list(scores[0]["task"]), list(mixtures[0]["weights"])
    final = summary["final_bits_per_byte"]
    mixture_rows = [[domain, *(f"{m['weights'][domain]:.1%}" for m in mixtures)] for domain in domains]
    task_rows = [
        [task, *(f"{s['task'][task]:.3f}" for s in scores), f"{final['task'][task]:.3f}", _gain(summary, task)]
        for task in tasks
    ]
    means = ["mean of tasks", *(f"{_mean(s['task']):.3f}" for s in scores), f"{_mean(final['task']):.3f}", ""]
    domain_rows = [
        [domain, *(f"{s['domain'][domain]:.3f}" for s in scores), f"{final['domain'][domain]:.3f}", ""]
        for domain in domains
    ]
    blocks = [
        _block(["Mixture", *rounds, "next"], mixture_rows),
        _block(["Bits per byte: tasks", *rounds, "final", "expected"], [*task_rows, means]),
        _block(["Bits per byte: held-out", *rounds, "final", ""], domain_rows),
        *_remarks(summary),
        f"Figures and tables: data/08_reporting/{experiment}/ and data/07_model_output/{experiment}/\n"
        "Compare runs in MLflow: make ui",
    ]
    return "\n" + "\n\n".join(blocks)


def _gain(summary: Mapping[str, Any], task: str) -> str:
    gain = summary["expected_gain"].get(task)
    return "" if gain is None else f"{gain:+.3g}"


def _remarks(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        "`final` scores all evaluation data, the rounds a fixed part of it. `expected` is the first-order gain of the "
        "next\nmixture over the prior, in units of influence: how much faster the task's loss falls.",
        *(f"{name}: {how}" for name, how in summary["held"].items()),
        *summary["notes"],
    ]
    return ["\n".join(lines)]


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _block(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in [header, *rows]
    ]
    rule = "-" * len(lines[0])
    return "\n".join(line.rstrip() for line in [lines[0], rule, *lines[1:]])
