"""What runs end with: what a whole run comes to, and the tables for a terminal."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tikmix_pipeline.influence.agreement import MEAN_GAIN, MEAN_OF_TASKS
from tikmix_pipeline.mixture.records import ByDomain, DecisionRecord
from tikmix_pipeline.report.laid_out import LaidOut, Part, Table, laid_out
from tikmix_pipeline.report.number_format import gain_unit
from tikmix_pipeline.report.remix_report import DomainRow, RemixReport, TaskRow
from tikmix_pipeline.report.run_summary import RunSummary
from tikmix_pipeline.report.sentences import cost_of_constraints
from tikmix_pipeline.report.terminal_text import WIDTH
from tikmix_pipeline.report.verdict import in_a_sentence, verdict_rows
from tikmix_pipeline.statistics import mean_of_defined

_SHARES = "as a share of the best possible: 1 is all of the coming chunk on the domain that helps the task most."
_EXPECTED = {
    "lookahead": "what the next mixture lowers the task's loss by against the prior, in nats per token after a short "
    "branch of training from this checkpoint, as measured on such branches or predicted from them.",
    "influence": f"what the surrogate predicts the next mixture to gain over the prior, {_SHARES}",
}
_FIRST_ORDER = f"the first-order gain of the next mixture over the prior, {_SHARES}"
_SECOND_ORDER = (
    "the gain of the next mixture over the prior to second order, as a share of the best possible: 1 is what the best "
    "mixture for that task alone would gain."
)

_COMPARE = "Compare runs in MLflow: make ui\n(without a checkout: mlflow ui --backend-store-uri sqlite:///mlflow.db)"
_NAMED_DOMAINS = 4
_NAMED_SHARE = 0.02
"""Of what a task asks for, the least that is told."""

_FALL = "fall of the response,"
_RESPONSES = {"lookahead": "fall of the response, nats per token after a branch,"}


def summary_table(summary: RunSummary, experiment: str) -> LaidOut:
    """Lay out what guarded text pays, mixtures, bits per byte and the last decision's expected gain.

    `experiment` names the folders.
    """
    mixtures, scores = summary.mixtures, summary.bits_per_byte
    rounds = [f"round {number}" for number in range(len(scores))]
    mixture_rows = [[domain, *(f"{m.weights[domain]:.1%}" for m in mixtures)] for domain in mixtures[0].weights]
    gains = _told(summary.expected_gain, summary.gain_scale)
    task_rows = [
        [task, *(f"{score['task'][task]:.3f}" for score in scores), gains.get(task, "")] for task in scores[0]["task"]
    ]
    means = [f"{sum(score['task'].values()) / len(score['task']):.3f}" for score in scores]
    domain_rows = [[domain, *(f"{score['domain'][domain]:.3f}" for score in scores)] for domain in mixtures[0].weights]
    choice_rows = [[task, *(f"{score[task]:.3f}" for score in summary.choice)] for task in summary.final_choice]
    expected = _EXPECTED.get(str(summary.response), _SECOND_ORDER if summary.is_second_order else _FIRST_ORDER)
    remarks = [
        "After a round a fixed part of the evaluation data is scored, at the end all of it.",
        *([f"`expected` is {expected}"] if gains else []),
        *(f"{name}: {how}" for name, how in summary.held.items()),
        *summary.notes,
    ]
    compared = ["Bits per byte of whole items", "decided", "prior kept", "difference", "95 % interval"]
    return _ended(
        summary.guardrail_notes or (),
        Table(["Mixture", *rounds, "next"], mixture_rows),
        *([_asked(summary)] if summary.asked else []),
        Table(["Bits per byte: tasks", *rounds, "expected"], [*task_rows, ["mean of tasks", *means, ""]]),
        *([Table(["Right choice: nats per item", *rounds], choice_rows)] if choice_rows else []),
        Table(["Bits per byte: held-out", *rounds], domain_rows),
        _at_the_end(summary),
        *([Table(compared, verdict_rows(summary.verdict))] if summary.verdict else []),
        remarks,
        places=f"Figures and tables: data/08_reporting/{experiment}/ and data/07_model_output/{experiment}/",
        headline=in_a_sentence(summary.verdict) if summary.verdict else "",
    )


def _at_the_end(summary: RunSummary) -> Table:
    """Lay out the scores on all evaluation data, which are of other items than those of the rounds."""
    final, choice = summary.final_bits_per_byte, summary.final_choice
    tasks = final["task"]
    rows = [[task, f"{bits:.3f}", f"{choice[task]:.3f}" if task in choice else ""] for task, bits in tasks.items()]
    rows.append(["mean of tasks", f"{sum(tasks.values()) / len(tasks):.3f}", ""])
    rows += [[domain, f"{bits:.3f}", ""] for domain, bits in final["domain"].items()]
    heads = ["All evaluation data, at the end", "bits per byte", "right choice, nats per item"]
    shown = 3 if choice else 2
    return Table(heads[:shown], [row[:shown] for row in rows])


def _asked(summary: RunSummary) -> Table:
    """Say which domains each task asks for, and which they get together."""
    rows = {**(summary.asked or {}), "all together": summary.mixtures[-1].weights}
    room = WIDTH - 2 - max(map(len, ("Alone, each would get next", *rows)))
    told = [[task, _largest_shares(weights, room)] for task, weights in rows.items()]
    return Table(["Alone, each would get next", ""], told, is_text=True)


def _largest_shares(weights: ByDomain, room: int) -> str:
    """Name the domains that have most of a mixture, as many as there is room for, and at least one."""
    largest = sorted(weights.items(), key=lambda entry: -entry[1])[:_NAMED_DOMAINS]
    named = [f"{domain} {weight:.0%}" for domain, weight in largest if weight >= _NAMED_SHARE]
    while len(named) > 1 and len(", ".join(named)) > room:
        named.pop()
    return ", ".join(named)


def validation_table(rows: Sequence[Mapping[str, Any]], experiment: str) -> LaidOut:
    """Lay out how well each candidate predicted, how well any could have, and what to set.

    `rows` are those of `validate.parquet` for one round; `experiment` names the folders.
    """
    first = rows[0]
    figures = ("pearson", "pearson_ceiling", "spearman", "ceiling")
    best = [[row["task"], *(_figure(row[of]) for of in figures), f"{row['slope']:.3g}"] for row in rows if row["best"]]
    return _ended(
        f"Round {first['round']}, {first['half']} half, {first['replicates']} replicates of {first['branch_tokens']:,} "
        "tokens per branch",
        _candidates(rows),
        *([Table(["Best candidate", "Pearson", "ceiling", "Spearman", "ceiling", "slope"], best)] if best else []),
        "In brackets: middle 95 % of a bootstrap over replicates. Slope: nats per token that were measured over the "
        "effect that was predicted, in units of influence.",
        _advice(rows),
        places=f"Table: data/08_reporting/{experiment}/validate.parquet; figures beside it",
    )


def comparison_text(table: str, experiment: str) -> LaidOut:
    """Return a comparison's table, which is Markdown already, with where to find the rest."""
    places = f"Tables: data/08_reporting/{experiment}/compare*.parquet; figures and logs of the arms beside them"
    narrow = re.sub(r" {2,}", " ", re.sub(r"-{4,}", "---", table.strip()))  # a page aligns columns by itself
    return dataclasses.replace(_ended(table.strip(), places=places), markdown=narrow)


def remix_text(report: RemixReport) -> LaidOut:
    """Lay out what was decided for an external run: mixtures, expected gains, and where the rest is."""
    experiment = report.experiment
    free = report.unconstrained_differs is not None
    weights = ["current", "recommended", *(["unconstrained"] if free else [])]
    gains = ["gain", *(["unconstrained_gain"] if free else [])]
    domains = [[row.name, *(f"{getattr(row, name):.1%}" for name in weights)] for row in report.domains]
    tasks = [[row.name, *(f"{getattr(row, name):+.3g}" for name in gains), f"{row.stderr:.2g}"] for row in report.tasks]
    rows: list[DomainRow | TaskRow] = [*report.domains, *report.tasks]
    held = [f"{row.name}: {row.held_by}" for row in rows if row.held_by]
    held += [line for line in report.constraints if "it binds" in line]
    exports = ", ".join(row.trainer for row in report.exports)
    cost = [cost_of_constraints(report.tasks, report.gain_unit)] if report.unconstrained_differs else []
    return _ended(
        report.guardrail_notes or (),
        Table([f"Mixture of the next {report.chunk_tokens:,} tokens", "now", "next", *weights[2:]], domains),
        Table([f"Expected gain, {gain_unit(report.gain_unit)}", "next", *weights[2:], "error"], tasks),
        [*held, *cost, *report.falling, *report.notes],
        places=f"Report: data/08_reporting/{experiment}/report.html"
        f"\nWhat if (other weights, bounds): data/08_reporting/{experiment}/whatif.html"
        + (f"\nFiles for {exports}: data/08_reporting/{experiment}/exports/" if exports else ""),
    )


def sweep_table(
    decision: DecisionRecord,
    quality: Sequence[Mapping[str, Any]],
    experiment: str,
    steps: Sequence[Mapping[str, Any]] = (),
) -> LaidOut:
    """Lay out what a sweep decided, what it expects of that, and how well each surrogate predicted.

    `quality` are the rows of `sweep/quality.parquet` for the decision's round, and `steps` those of
    `sweep/steps.parquet`, where its branches were chosen one by one; `experiment` names the folders.
    """
    weights = {"prior": decision.prior, "D": decision.direct_weights, "M": decision.searched_weights}
    present = {name: of for name, of in weights.items() if of is not None}
    mixtures = [[domain, *(f"{of[domain]:.1%}" for of in present.values())] for domain in decision.weights]
    gains = _told(decision.expected_gain, decision.gain_scale).items()
    is_share = decision.gain_scale is not None
    expected = "gain, share of the best possible," if is_share else _RESPONSES.get(str(decision.response), _FALL)
    whose = "D's mixture is kept" if decision.kept == "direct" else "M, the surrogate's mixture"
    direct, searched = decision.direct_objective, decision.searched_objective
    beside = "" if direct is None else f", {direct:.4g} of D's"
    number = decision.round - 1
    return _ended(
        decision.guardrail_notes or (),
        Table(["Mixture", *present], mixtures),
        Table([f"Expected {expected} against the prior", ""], [*map(list, gains)]),
        *([_sequence(steps)] if steps else []),
        _surrogates(quality),
        'Means over targets; "of the mean" is Spearman of the mean of all targets. Coverage: how often an interval '
        "meant for 90 % holds what was measured. Undefined: targets of which one side is constant, in no mean.",
        [
            f"Decided: {whose}.",
            f"Predicted objective, lower is better: {searched:.4g} of M{beside}.",
            *decision.notes,
        ],
        places=f"Tables: data/07_model_output/{experiment}/round_{number}/sweep/; figures: "
        f"data/08_reporting/{experiment}/",
    )


def _sequence(steps: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out why each branch was trained, what was expected of it and what came."""
    header = ["Branch", "chosen for", "expected gain", "measured, nats per token over the reference"]
    rows = [
        [
            step["run"],
            step["chosen_for"],
            _with_error(step["expected_gain"], step["deviation"]),
            _signed(step["measured_gain"]),
        ]
        for step in steps
    ]
    return Table(header, rows)


def _with_error(gain: float, deviation: float) -> str:
    return "" if math.isnan(gain) else f"{gain:+.4f} ± {deviation:.4f}"


def _signed(gain: float) -> str:
    return "failed" if math.isnan(gain) else f"{gain:+.4f}"


def _told(gains: Mapping[str, int | float], scale: Mapping[str, int | float] | None) -> dict[str, str]:
    """Return gains as they are shown: shares of the best possible, or as measured where there is nothing to share."""
    return {task: f"{gain if scale is None else gain / scale[task]:+.3g}" for task, gain in gains.items()}


def _candidates(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the candidates, and below them what they could have reached."""
    means, gains = ([row for row in rows if row["task"] == task] for task in (MEAN_OF_TASKS, MEAN_GAIN))
    body = [
        [mean["curvature"], _with_interval(mean, "pearson"), _with_interval(mean, "spearman"), _figure(gain["pearson"])]
        for mean, gain in zip(means, gains, strict=True)
    ]
    mean, gain = means[0], gains[0]
    two = [_figure(mean["pearson_ceiling"]), _figure(mean["ceiling"]), _figure(gain["pearson_ceiling"])]
    perfect = [_figure(mean["reachable"]), "", _figure(gain["reachable"])]
    body += [["two replicates", *two], ["a perfect prediction", *perfect]]
    return Table(["Mean of tasks", "Pearson", "Spearman", "Pearson of the mean gain"], body)


def _advice(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say which candidate to measure with, and its calibration: the slope of the mean gain."""
    best = next((row for row in rows if row["best"] and row["task"] == MEAN_GAIN), None)
    if best is None or not best["slope"] > 0:
        return "No candidate predicts what the branches did. Train longer branches, or take a larger validate.step."
    names = ("inverse", "damping", "damping_unit")
    settings = [] if best["kind"] == "identity" else [f"influence.{name}={best[name]}" for name in names]
    chosen = ",".join([f"influence.curvature={best['kind']}", *settings, f"influence.calibration={best['slope']:.3g}"])
    groups = "" if best["groups"] == "" else f" with influence.groups: [{best['groups']}] in a conf file"
    caution = (
        ""
        if best["branch_tokens"] == best["chunk_tokens"]
        else f"\nThe calibration is that of {best['branch_tokens']:,} tokens; a chunk has {best['chunk_tokens']:,}."
    )
    return f"Best: {best['curvature']}. Set --params {chosen}{groups}{caution}"


def _surrogates(quality: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the mean quality of each surrogate, the naive rules below them."""
    body = []
    for name in dict.fromkeys(row["surrogate"] for row in sorted(quality, key=lambda row: bool(row["naive"]))):
        rows = [row for row in quality if row["surrogate"] == name]
        undefined = sum(math.isnan(row["spearman"]) for row in rows)
        spearman, r2, coverage = (
            float(mean_of_defined(np.array([row[of] for row in rows], dtype=np.float64), axis=0))
            for of in ("spearman", "r2", "coverage")
        )
        label = f"{name} (naive rule)" if rows[0]["naive"] else name
        ranked = _figure(spearman, 3), _figure(rows[0]["aggregate_spearman"], 3)
        body.append([label, *ranked, _figure(r2, 3), _figure(coverage), str(undefined or "")])
    first = quality[0]
    title = f"Surrogate, {first['verdict']}, n = {first['n']}"
    return Table([title, "Spearman", "of the mean", "R²", "coverage", "undefined"], body)


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    return f"{_figure(row[name])} ({_figure(row[f'{name}_low'])} to {_figure(row[f'{name}_high'])})"


def _figure(value: float, decimals: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _ended(*parts: Part, places: str, headline: str = "") -> LaidOut:
    """Lay out what a run ends with; `places` says where files are."""
    return laid_out(parts, places=f"{places}\n{_COMPARE}", headline=headline)
