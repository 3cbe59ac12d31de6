"""What of a run is logged: its tags, which datasets, and the metrics that these become."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import math
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline import __version__
from tikmix_pipeline.influence.agreement import MEAN_GAIN, MEAN_OF_TASKS
from tikmix_pipeline.pipelines.names import COMPARISON_FIGURES
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.provenance import flatten

if TYPE_CHECKING:
    from tikmix_pipeline.influence.report import Measurement
    from tikmix_pipeline.lm.cost_records import CostRecord
    from tikmix_pipeline.mixture.records import Gains, MixtureRecord
    from tikmix_pipeline.report.verdict import Verdict

_ROUND = re.compile(r"^round_(\d+)_(\w+)$")
TABLES = {
    *("evaluation", "final_evaluation", "influence", "mixture_rows", "branch_losses", "predictions", "validation"),
    *("sweep_quality", "sweep_predictions", "sweep_importance", "sweep_trace", "sweep_exact", "sweep_steps"),
    "sweep_evidence",
}
COMPARISONS = {f"comparison_{name}" for name in ("scores", "summary", "stability", "against", "accuracy")}
DOCUMENTS = {
    *("token_budget", "decision", "baseline", "measurement", "gains", "asked_mixtures", "verdict", "summary"),
    *("sweep_cost", "sweep_decision", "sweep_design", "prediction_score"),
}
DOCUMENT_NAMES = {"token_budget": "stock", "asked_mixtures": "asked"}
"""Documents that have another name in the store than in the catalog, as they had from the first."""
CHECKPOINT = "checkpoint"
"""Logged by where it stands; its weights are not even read."""
AT_ROOT = {"mixture_figure", "bits_per_byte_figure", *COMPARISON_FIGURES}
"""Figures that stand at the root of the artifacts too, where the page that compares runs shows those of two at once."""
FILES = {"report": "report", "whatif": "report", "exports": "exports"}
"""Logged as they stand on disk, by the place they get; figures go to one of their own."""
SWEEP_PARTS = {"sweep_ratios", "sweep_metrics", "surrogate"}
_FIGURES = {
    *("influence_figure", "decision_figure", "validation_figure", "candidates_figure"),
    *("surrogate_figure", "importance_figure", "search_figure", "sequence_figure"),
}
_LOGGED_ONCE = {
    *("corpus", "final_evaluation", "asked_mixtures", "verdict", "summary"),
    *("mixture_figure", "bits_per_byte_figure"),
    *COMPARISONS,
    *COMPARISON_FIGURES,
}
_LOGGED = {CHECKPOINT, "train_log", "mixture", *TABLES, *DOCUMENTS, *SWEEP_PARTS, *FILES, *_FIGURES} - _LOGGED_ONCE

_LONGEST_RUN_NAME = 120
_LONGEST_NAME = 80  # of the 250 characters that a key may have
_NOT_IN_A_METRIC = re.compile(r"[^\w. -]")

Metrics = list[tuple[str, float, int]]
"""Key, value and step."""

HEADLINE, GAIN = "score/mean_of_tasks", "score/gain_over_prior"
"""Bits per byte of the gold answers, mean of the tasks, lower is better; and by how many bits per byte whole items are
better than on the prior, as the verdict has it."""


SCORES = {f"{prefix}{name}" for name in ("bpb", "bpb_text", "choice") for prefix in ("", "final_")}
"""What keys of metrics begin with that are about one dataset each."""
OF_A_CHECKPOINT = {"score", "mixture", *SCORES}
"""What keys of metrics begin with that a round's logged model has: what it scores, and what it was trained on."""


def is_logged(name: str) -> bool:
    """Tell whether a dataset's content goes to MLflow."""
    number, kind = split_name(name)
    return kind in (_LOGGED_ONCE if number is None else _LOGGED)


def split_name(name: str) -> tuple[int | None, str]:
    """Return a dataset's round, `None` where it is of no round, and what it is."""
    found = _ROUND.match(name)
    return (int(found[1]), found[2]) if found else (None, name)


def pipelines_of(run_params: Mapping[str, Any]) -> list[str]:
    """Return the names of the pipelines that Kedro runs, the default one under its own."""
    names = run_params.get("pipeline_names") or ["__default__"]
    return ["tikmix" if name == "__default__" else name for name in names]


def run_tags(run: Run, run_params: Mapping[str, Any]) -> dict[str, str]:
    """Return who runs which code, and what was overridden, `run_params` being what Kedro tells its hooks of the run."""
    overrides = flatten(run_params.get("runtime_params") or {})
    return {
        "mlflow.source.name": "kedro run",
        "mlflow.user": _user(),
        "experiment": run.parameters.experiment,
        "pipelines": ",".join(pipelines_of(run_params)),
        "environment": run_params.get("env") or "local",
        "strategy": run.parameters.tikmix.strategy,
        "corpus": run.parameters.corpus.name,
        "model": run.parameters.model.checkpoint or run.parameters.model.preset,
        "overrides": ", ".join(f"{key}={value}" for key, value in overrides.items()) or "none",
        **{f"override.{key}": str(value) for key, value in overrides.items()},
        **code_version(run.root),
    }


def run_name(run: Run, run_params: Mapping[str, Any]) -> str:
    """Return what a run is: its pipelines, its strategy, and what was overridden, `tikmix · direct · entropy=0.3`.

    A comparison has strategies of its own.
    """
    overrides = flatten(run_params.get("runtime_params") or {})
    short = Counter(key.rpartition(".")[2] for key in overrides)
    told = [
        f"{last if short[last := key.rpartition('.')[2]] == 1 else key}={value}"
        for key, value in overrides.items()
        if key not in ("experiment", "tikmix.strategy", "tracking") and not key.startswith("mlflow.")
    ]
    pipelines = pipelines_of(run_params)
    strategy = [] if pipelines == ["compare"] else [run.parameters.tikmix.strategy]
    # what is asked for comes first: names are cut where tables are narrow
    own = [] if run.parameters.experiment == "tikmix" else [run.parameters.experiment]
    name = " · ".join(["+".join(pipelines), *strategy, *told, *own])
    return name if len(name) <= _LONGEST_RUN_NAME else f"{name[: _LONGEST_RUN_NAME - 1]}…"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not be in its passwd
        return str(os.getuid())


def code_version(root: Path) -> dict[str, str]:
    """Return the commit, marked when the work tree differs from it; nothing outside a git checkout."""
    tags = {"version": __version__}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = _git(root, "rev-parse", "HEAD")
        dirty = "-dirty" if _git(root, "status", "--porcelain") else ""
        tags |= {"commit": commit + dirty, "mlflow.source.git.commit": commit}
    return tags


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def in_a_metric(name: str) -> str:
    """Return a name as a part of a metric's key, without what MLflow refuses there."""
    return _NOT_IN_A_METRIC.sub("", name.replace("/", "-")).replace(" ", "-")


def keys_of(names: Iterable[str]) -> dict[str, str]:
    """Return names of any kind as parts of metrics' keys, no two of them alike.

    A name that is valid as it is stays; one that would be spelled like another, or that MLflow would refuse, has a
    digest of itself at its end.
    """
    spelled = {name: in_a_metric(name) for name in names}
    times = Counter(spelled.values())

    def is_its_own(name: str, key: str) -> bool:
        return (times[key] == 1 or key == name) and bool(key.strip(".")) and len(key) <= _LONGEST_NAME

    return {
        name: key if is_its_own(name, key) else f"{key[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, key in spelled.items()
    }


def _of_training(table: Any, number: int) -> Metrics:
    del number
    rows = zip(table["step"].tolist(), table["loss"].tolist(), table["learning_rate"].tolist(), strict=True)
    return [entry for step, loss, rate in rows for entry in (("loss/train", loss, step), ("learning_rate", rate, step))]


def _of_evaluation(table: Any, number: int, prefix: str = "") -> Metrics:
    """Log bits per byte, and the loss of multiple choice beside them."""
    choices = table[table["measure"] == "choice"]
    scored = zip(choices["name"], choices["nats_per_item"].tolist(), strict=True)
    bits = _of_bits_per_byte(table[table["measure"] != "choice"], number, f"{prefix}bpb")
    return [*bits, *((f"{prefix}choice/{name}", value, number) for name, value in scored)]


def _of_bits_per_byte(table: Any, number: int, prefix: str) -> Metrics:
    main = {"task": "answer", "domain": "text"}
    rows = table[["name", "kind", "measure", "bits_per_byte"]].itertuples(index=False)
    metrics: Metrics = [
        (f"{prefix}/{name}" if measure == main[kind] else f"{prefix}_{measure}/{name}", value, number)
        for name, kind, measure, value in rows
    ]
    return [*metrics, (f"{prefix}/mean_of_tasks", _mean_of_tasks(table), number)]


def _mean_of_tasks(table: Any) -> float:
    return float(table[(table["kind"] == "task") & (table["measure"] == "answer")]["bits_per_byte"].mean())


def _of_round(table: Any, number: int) -> Metrics:
    """Log the headline of a round first, since comparisons open with the metric that was logged first."""
    return [(HEADLINE, _mean_of_tasks(table), number), *_of_evaluation(table, number)]


def _of_influence(table: Any, number: int) -> Metrics:
    """Log influence as it is, as a share of the best possible, and in nats where their scale was measured."""
    names = ("influence", "share", "effect")
    rows: Iterable[Any] = table[["task", "domain", *names]].itertuples(index=False)
    metrics: Metrics = [
        (f"{name}/{task}/{domain}", value, number)
        for task, domain, *values in rows
        for name, value in zip(names, values, strict=True)
    ]
    return [entry for entry in metrics if not math.isnan(entry[1])]


def _of_measurement(report: Measurement, number: int) -> Metrics:
    stability = report.rank_stability.tasks
    ranked = [(f"rank_stability/{task}", value, number) for task, value in stability.items() if value is not None]
    return [*ranked, *_of_cost(report.cost, "cost", number)]


def _of_gains(gains: Gains, number: int) -> Metrics:
    """Log gains under a name that tells their unit."""
    names = {"share": ("share", "share_stderr"), "nats": ("gain", "stderr")}
    return [
        (f"expected_{name}/{task}", value, number)
        for task, gain in gains.tasks.items()
        for name, value in zip(names[gain.unit], (gain.gain, gain.stderr), strict=True)
    ]


def _of_cost(cost: CostRecord, prefix: str, number: int) -> Metrics:
    return [(f"{prefix}/tokens", cost.tokens, number), (f"{prefix}/flops", cost.flops, number)]


def _of_validation(table: Any, number: int) -> Metrics:
    figures = ["spearman", "pearson", "slope", "ceiling", "pearson_ceiling"]
    metrics: Metrics = []
    for task, prefix in ((MEAN_OF_TASKS, ""), (MEAN_GAIN, "mean_gain_")):
        for row in table[table["task"] == task].to_dict("records"):
            candidate = in_a_metric(row["curvature"])
            metrics += [(f"validate/{candidate}/{prefix}{name}", row[name], number) for name in figures]
    return [entry for entry in metrics if not math.isnan(entry[1])]


def _of_sweep_quality(table: Any, number: int) -> Metrics:
    """Log what is defined; the mean over the targets beside how many of them are not in it."""
    metrics: Metrics = []
    keys = keys_of(table["target"].unique())
    for surrogate, rows in table.groupby("surrogate", sort=False):
        name = f"sweep/{in_a_metric(surrogate)}"
        for row in rows.to_dict("records"):
            metrics += [(f"{name}/{keys[row['target']]}/{of}", row[of], number) for of in ("spearman", "r2")]
        metrics.append((f"{name}/mean_spearman", float(rows["spearman"].mean()), number))
        metrics.append((f"{name}/aggregate_spearman", float(rows["aggregate_spearman"].iloc[0]), number))
        metrics.append((f"{name}/undefined", int(rows["spearman"].isna().sum()), number))
    return [entry for entry in metrics if not math.isnan(entry[1])]


def _of_mixture(mixture: MixtureRecord, number: int) -> Metrics:
    return [(f"mixture/{domain}", weight, number) for domain, weight in mixture.weights.items()]


def _of_verdict(verdict: Verdict, number: int) -> Metrics:
    """Log what is left of keeping the prior, in bits per byte, with the interval over items."""
    means = {"tasks": verdict.mean_of_tasks, "judges": verdict.mean_of_judges, "heldout": verdict.mean_of_heldout}
    metrics: Metrics = [
        (f"verdict/{name}{end}", value, number)
        for name, mean in means.items()
        if mean is not None
        for end, value in (("", mean.difference), ("_low", mean.low), ("_high", mean.high))
    ]
    metrics += [(f"verdict/task/{task}", found.difference, number) for task, found in verdict.tasks.items()]
    metrics.append(("verdict/extra_compute", verdict.extra_compute, number))
    if verdict.mean_of_tasks is not None:
        metrics.append((GAIN, -verdict.mean_of_tasks.difference, number))
    return [entry for entry in metrics if not math.isnan(entry[1])]


def _of_comparison(table: Any, number: int) -> Metrics:
    """Log what each arm differs by from the reference, on means of tasks and of held-out text, with the interval."""
    from tikmix_pipeline.report.comparison_scores import MEAN_OF_SPLIT, MEAN_OF_TASKS

    splits = {name: split for split, name in MEAN_OF_SPLIT.items()} | {MEAN_OF_TASKS: "all_tasks"}
    rows = table[table["task"].isin(splits) & table["difference"].notna()]
    keys = keys_of(rows["arm"].unique())
    return [
        (f"arm/{keys[row['arm']]}/{row['measure']}_{splits[row['task']]}{end}", float(row[of]), number)
        for row in rows.to_dict("records")
        for of, end in (("difference", ""), ("low", "_low"), ("high", "_high"))
        if not math.isnan(row[of])
    ]


METRICS: Mapping[str, Callable[[Any, int], Metrics]] = {
    "train_log": _of_training,
    "evaluation": _of_round,
    "final_evaluation": partial(_of_evaluation, prefix="final_"),
    "influence": _of_influence,
    "measurement": _of_measurement,
    "mixture": _of_mixture,
    "gains": _of_gains,
    "verdict": _of_verdict,
    "validation": _of_validation,
    "sweep_cost": lambda report, number: _of_cost(report.cost, "cost/sweep", number),
    "sweep_quality": _of_sweep_quality,
    "comparison_summary": _of_comparison,
}
"""How a dataset of that kind, of a given round, becomes metrics."""
