"""The tables that runs end with."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tikmix_pipeline.columns import aligned
from tikmix_pipeline.influence.agreement import MEAN_GAIN, MEAN_OF_TASKS


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


def validation_table(rows: Sequence[Mapping[str, Any]], experiment: str) -> str:
    """Lay out how well each candidate predicted, how well any could have, and what to set.

    Args:
        rows: of `validate.parquet`, for one round.
        experiment: names the folders.
    """
    first = rows[0]
    blocks = [
        f"Round {first['round']}, {first['half']} half, {first['replicates']} replicates of {first['branch_tokens']:,} "
        "tokens per branch",
        _candidates(rows),
        *_best_by_task(rows),
        "In brackets: middle 95 % of a bootstrap over replicates. Slope: measured over predicted effect.",
        _advice(rows),
        f"Table: data/08_reporting/{experiment}/validate.parquet; figures beside it\nCompare runs in MLflow: make ui",
    ]
    return "\n" + "\n\n".join(blocks)


def _candidates(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out the candidates, and below them what they could have reached."""
    pairs = list(zip(_of_task(rows, MEAN_OF_TASKS), _of_task(rows, MEAN_GAIN), strict=True))
    body = [
        [mean["curvature"], _with_interval(mean, "pearson"), _with_interval(mean, "spearman"), _figure(gain["pearson"])]
        for mean, gain in pairs
    ]
    mean, gain = pairs[0]
    two = [_figure(mean["pearson_ceiling"]), _figure(mean["ceiling"]), _figure(gain["pearson_ceiling"])]
    perfect = [_figure(mean["reachable"]), "", _figure(gain["reachable"])]
    body += [["two replicates", *two], ["a perfect prediction", *perfect]]
    return _block(["Mean of tasks", "Pearson", "Spearman", "Pearson of the mean gain"], body)


def _of_task(rows: Sequence[Mapping[str, Any]], task: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["task"] == task]


def _best_by_task(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("pearson", "pearson_ceiling", "spearman", "ceiling")
    body = [
        [row["task"], *(_figure(row[name]) for name in names), f"{row['slope']:.3g}"] for row in rows if row["best"]
    ]
    return [_block(["Best candidate", "Pearson", "ceiling", "Spearman", "ceiling", "slope"], body)] if body else []


def _advice(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say which candidate to measure with, and its scale: the slope of the mean gain."""
    best = next((row for row in rows if row["best"] and row["task"] == MEAN_GAIN), None)
    if best is None or not best["slope"] > 0:
        return "No candidate predicts what the branches did. Train longer branches, or take a larger validate.step."
    names = ("inverse", "damping", "damping_unit")
    settings = [] if best["kind"] == "identity" else [f"influence.{name}={best[name]}" for name in names]
    chosen = ",".join([f"influence.curvature={best['kind']}", *settings, f"influence.calibration={best['slope']:.3g}"])
    groups = "" if best["groups"] == "" else f" with influence.groups: [{best['groups']}] in a conf file"
    scale = (
        ""
        if best["branch_tokens"] == best["chunk_tokens"]
        else f"\nThe calibration is that of {best['branch_tokens']:,} tokens; a chunk has {best['chunk_tokens']:,}."
    )
    return f"Best: {best['curvature']}. Set --params {chosen}{groups}{scale}"


def comparison_text(table: str, experiment: str) -> str:
    """Return a comparison's table with where to find the rest."""
    places = f"Tables: data/08_reporting/{experiment}/compare*.parquet; figures and logs of the arms beside them"
    return f"\n{table.strip()}\n\n{places}\nCompare runs in MLflow: make ui"


def remix_text(report: Mapping[str, Any]) -> str:
    """Lay out what was decided for a run elsewhere: mixtures, expected gains, and where the rest is.

    Args:
        report: of `report.json`.
    """
    experiment = report["experiment"]
    free = report["unconstrained_differs"] is not None
    weights = ["current", "recommended", *(["unconstrained"] if free else [])]
    gains = ["gain", *(["unconstrained_gain"] if free else [])]
    domains = [[row["name"], *(f"{row[name]:.1%}" for name in weights)] for row in report["domains"]]
    tasks = [[row["name"], *(f"{row[name]:+.3g}" for name in gains), f"{row['stderr']:.2g}"] for row in report["tasks"]]
    held = [f"{row['name']}: {row['held_by']}" for row in (*report["domains"], *report["tasks"]) if row["held_by"]]
    held += [line for line in report["constraints"] if "it binds" in line]
    exports = ", ".join(row["trainer"] for row in report["exports"])
    blocks = [
        _block([f"Mixture of the next {report['chunk_tokens']:,} tokens", "now", "next", *weights[2:]], domains),
        _block(["Expected gain, nats per token", "next", *weights[2:], "error"], tasks),
        "\n".join([*held, *report["notes"]]),
        f"Report: data/08_reporting/{experiment}/report.html\n"
        + (f"Files for {exports}: data/08_reporting/{experiment}/exports/\n" if exports else "")
        + "Compare runs in MLflow: make ui",
    ]
    return "\n" + "\n\n".join(blocks)


def sweep_table(decision: Mapping[str, Any], quality: Sequence[Mapping[str, Any]], experiment: str) -> str:
    """Lay out what a sweep decided, what it expects of that, and how well each surrogate predicted.

    Args:
        decision: of `sweep/decision.json`.
        quality: rows of `sweep/quality.parquet`, of the same round.
        experiment: names the folders.
    """
    title = "Expected fall of the response, against the prior"
    gains = [[target, f"{gain:+.3g}"] for target, gain in decision["expected_gain"].items()]
    number = decision["round"] - 1
    blocks = [
        _three_mixtures(decision),
        _block([title, ""], gains),
        _surrogates(quality),
        'Means over targets; "of the mean" is Spearman of the mean of all targets. Coverage: how often an interval\n'
        "meant for 90 % holds what was measured. Undefined: targets of which one side is constant, in no mean.",
        "\n".join([*_decided(decision), *decision["notes"]]),
        f"Tables: data/07_model_output/{experiment}/round_{number}/sweep/; figures: data/08_reporting/{experiment}/\n"
        "Compare runs in MLflow: make ui",
    ]
    return "\n" + "\n\n".join(blocks)


def _three_mixtures(decision: Mapping[str, Any]) -> str:
    """Lay out the prior, D's mixture where there is one, and the one that was found on the surrogate."""
    columns = {"prior": decision["prior"], "D": decision["direct_weights"], "M": decision["searched_weights"]}
    present = {name: weights for name, weights in columns.items() if weights is not None}
    rows = [[domain, *(f"{w[domain]:.1%}" for w in present.values())] for domain in decision["weights"]]
    return _block(["Mixture", *present], rows)


def _surrogates(quality: Sequence[Mapping[str, Any]]) -> str:
    """Lay out the mean quality of each surrogate, the naive rules below them."""
    body = []
    for name in dict.fromkeys(row["surrogate"] for row in sorted(quality, key=lambda row: bool(row["naive"]))):
        rows = [row for row in quality if row["surrogate"] == name]
        undefined = sum(math.isnan(row["spearman"]) for row in rows)
        means = {of: _mean_of_defined([row[of] for row in rows]) for of in ("spearman", "r2", "coverage")}
        label = f"{name} (naive rule)" if rows[0]["naive"] else name
        ranked = _figure(means["spearman"], 3), _figure(rows[0]["aggregate_spearman"], 3)
        body.append([label, *ranked, _figure(means["r2"], 3), _figure(means["coverage"]), str(undefined or "")])
    first = quality[0]
    title = f"Surrogate, {first['verdict']}, n = {first['n']}"
    return _block([title, "Spearman", "of the mean", "R²", "coverage", "undefined"], body)


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _decided(decision: Mapping[str, Any]) -> list[str]:
    """Say whose mixture it is, and what the surrogate predicts for both."""
    whose = "D's mixture is kept" if decision["kept"] == "direct" else "M, the surrogate's mixture"
    direct, searched = decision["direct_objective"], decision["searched_objective"]
    beside = "" if direct is None else f", {direct:.4g} of D's"
    return [f"Decided: {whose}.", f"Predicted objective, lower is better: {searched:.4g} of M{beside}."]


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{_figure(row[name])} ({_figure(low)} to {_figure(high)})"


def _figure(value: float, decimals: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _gain(summary: Mapping[str, Any], task: str) -> str:
    gain = summary["expected_gain"].get(task)
    return "" if gain is None else f"{gain:+.3g}"


def _remarks(summary: Mapping[str, Any]) -> list[str]:
    expected = {
        "lookahead": "what the surrogate predicts\nthe next mixture to lower the task's loss by against the prior, in "
        "nats per token after a short branch of training.",
        "influence": "what the surrogate predicts\nthe next mixture to gain over the prior, in units of influence.",
    }
    first_order = (
        "the first-order gain of the next\nmixture over the prior, in units of influence: how much faster the task's "
        "loss falls."
    )
    lines = [
        "`final` scores all evaluation data, the rounds a fixed part of it. `expected` is "
        + expected.get(str(summary.get("response")), first_order),
        *(f"{name}: {how}" for name, how in summary["held"].items()),
        *summary["notes"],
    ]
    return ["\n".join(lines)]


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _block(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = aligned([header, *rows])
    rule = "-" * len(lines[0])
    return "\n".join(line.rstrip() for line in [lines[0], rule, *lines[1:]])
