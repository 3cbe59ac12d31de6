"""The comparison as a table for readers, tasks by arms like Table 1 of the paper, and as one for programs.

What a table of scores is like, and what is refused, is said in `comparison_scores`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.columns import aligned
from tikmix_pipeline.report.comparison_scores import (
    ALL_TASKS,
    HELDOUT,
    IN_DOMAIN,
    MEAN_OF_SPLIT,
    MEAN_OF_TASKS,
    OUT_OF_DOMAIN,
    Measure,
    arm_costs,
    arm_statistics,
    best_on,
    paired_differences,
)

if TYPE_CHECKING:
    import pandas as pd


_TITLE = {
    IN_DOMAIN: "in-domain tasks",
    OUT_OF_DOMAIN: "out-of-domain tasks",
    ALL_TASKS: "",
    HELDOUT: "held-out text of the domains",
}
_MEANS = {*MEAN_OF_SPLIT.values(), MEAN_OF_TASKS}
_UNSURE = "≈"
_SCORED = {
    "bpb": "Bits per byte of whole items (question and answer)",
    "bpb_answer": "Bits per byte of the gold answer given its question",
    "choice": "Nats per item: minus the log of the right option's probability among the options, by bytes",
}


def comparison_summary(scores: "pd.DataFrame", *, reference: str, measure: Measure = "bpb") -> "pd.DataFrame":
    """Return all that is known of each arm, a row per task and per mean of tasks.

    Returns:
        Columns `measure`, `reference` and those of `arm_statistics`; of `paired_differences`, with its `seeds` and `sd`
        as `paired_seeds` and `difference_sd`, undefined for the reference itself; of `best_on`; and of `arm_costs`.

    Raises:
        TikmixError: the arm `reference` has no scores.
    """
    differences = paired_differences(scores, reference=reference, measure=measure)
    summary = (
        arm_statistics(scores, measure=measure)
        .merge(
            differences.drop(columns="reference").rename(columns={"seeds": "paired_seeds", "sd": "difference_sd"}),
            on=["arm", "split", "task"],
            how="left",
        )
        .merge(best_on(scores, measure=measure), on="arm")
        .merge(arm_costs(scores).drop(columns="seeds"), on="arm")
    )
    summary["distinguishable"] = summary["distinguishable"].eq(other=True)
    summary["note"] = summary["note"].fillna("")
    summary["paired_seeds"] = summary["paired_seeds"].fillna(summary["seeds"]).astype("int64")
    summary.insert(0, "measure", measure)
    summary.insert(2, "reference", reference)
    return summary


def comparison_table(
    scores: "pd.DataFrame", *, reference: str, measure: Measure = "bpb", expected: Iterable[tuple[str, int]] = ()
) -> str:
    """Lay out the comparison in Markdown: what the numbers are, the table, and what it cannot tell.

    Of the arms and seeds that are `expected` it is said which have no scores.

    Raises:
        TikmixError: `reference` has no scores.
    """
    summary = comparison_summary(scores, reference=reference, measure=measure)
    arms = list(summary["arm"].unique())
    body = [*_score_rows(summary, arms), *_difference_rows(summary, arms, reference), *_cost_rows(summary, arms)]
    blocks = [_caption(scores, summary, reference, measure), _markdown(["", *arms], body)]
    remarks = [f"- {remark}" for remark in (*_absences(scores, expected), *_remarks(summary, arms, reference))]
    return "\n\n".join([*blocks, "\n".join(remarks)] if remarks else blocks) + "\n"


def _score_rows(summary: "pd.DataFrame", arms: Sequence[str]) -> Iterator[list[str]]:
    """Yield the tasks by split, each split headed by its name and followed by its mean."""
    nothing = [""] * len(arms)
    for split, rows in summary.groupby("split", sort=False):
        if _TITLE[split]:
            yield [f"*{_TITLE[split]}*", *nothing]
        for task, of_task in rows.groupby("task", sort=False):
            by_arm = of_task.set_index("arm").loc[arms]
            best = by_arm["mean"].min()
            cells = [
                _bold(_with_sd(mean, sd), mean == best) for mean, sd in zip(by_arm["mean"], by_arm["sd"], strict=True)
            ]
            yield [_bold(task, task in _MEANS), *cells]


def _difference_rows(summary: "pd.DataFrame", arms: Sequence[str], reference: str) -> Iterator[list[str]]:
    """Yield the differences of means to the reference, then how sure the one of all tasks is."""
    present = set(summary["task"])
    splits = [MEAN_OF_SPLIT[split] for split in (IN_DOMAIN, OUT_OF_DOMAIN)]
    means = [MEAN_OF_TASKS, *(splits if present.issuperset(splits) else [])]
    yield [f"*against {reference}, over the same seeds*", *[""] * len(arms)]
    for mean in means:
        rows = _of_task(summary, mean, arms)
        yield [
            mean.replace("mean", "difference"),
            *("reference" if row["arm"] == reference else _difference(row) for row in rows),
        ]
    rows = _of_task(summary, MEAN_OF_TASKS, arms)
    yield ["win probability", *(_probability(row["win_probability"]) for row in rows)]
    won = (
        "" if math.isnan(row["share_won"]) else f"{row['share_won'] * row['paired_seeds']:.3g} of {row['paired_seeds']}"
        for row in rows
    )
    yield ["seeds won", *won]


def _cost_rows(summary: "pd.DataFrame", arms: Sequence[str]) -> Iterator[list[str]]:
    rows = _of_task(summary, MEAN_OF_TASKS, arms)
    yield ["*counts and costs*", *[""] * len(arms)]
    yield [f"best on (of {rows[0]['tasks']} tasks)", *(f"{row['best_on']:.3g}" for row in rows)]
    yield ["method FLOPs", *(f"{row['method_flops']:.2e}" if row["method_flops"] else "0" for row in rows)]
    shares = (row["method_share"] for row in rows)
    yield ["method tokens, share of training", *("" if math.isnan(of) else f"{100 * of:.3g} %" for of in shares)]


def _caption(scores: "pd.DataFrame", summary: "pd.DataFrame", reference: str, measure: Measure) -> str:
    seeds = ", ".join(map(str, sorted(scores["seed"].unique())))
    spread = " ± standard deviation" if summary["sd"].notna().any() else ""
    tokens = sorted(summary["train_tokens"].unique())
    trained = " to ".join(f"{count:,.0f}" for count in dict.fromkeys((tokens[0], tokens[-1])))
    heldout = " Held-out text is of the training domains." if measure == "bpb" else ""
    return (
        f"{_SCORED[measure]}, lower is better: mean{spread} over the seeds {seeds}, {trained} training tokens each, "
        "the best of a row in bold. In-domain tasks guide the mixture by their query half and are scored on their "
        f"evaluation half; out-of-domain tasks only judge.{heldout} Differences are arm minus `{reference}` seed by "
        "seed, so below 0 the arm is better, with Student's 95 % intervals, each by itself: no allowance is made for "
        f"how many there are. {_UNSURE}: the interval holds 0. Win probability: that the arm would be ahead of "
        f"`{reference}` on a new seed. Best on: tasks on which the arm's mean is the lowest, ties shared. Method FLOPs "
        "and tokens: what deciding took, proxies and branches included, training itself not."
    )


def _absences(scores: "pd.DataFrame", expected: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Yield a sentence for each arm that did not come through for every seed."""
    present = set(scores[["arm", "seed"]].itertuples(index=False, name=None))
    absent: dict[str, list[str]] = {}
    for arm, seed in expected:
        if (arm, seed) not in present:
            absent.setdefault(arm, []).append(str(seed))
    for arm, seeds in absent.items():
        yield f"`{arm}` did not come through for the seeds {', '.join(seeds)}, and is left out of those."


def _remarks(summary: "pd.DataFrame", arms: Sequence[str], reference: str) -> Iterator[str]:
    """Yield a sentence for each arm that cannot be told apart, and for all that is out of the ordinary."""
    for row in _of_task(summary, MEAN_OF_TASKS, arms):
        if row["arm"] == reference:
            continue
        if math.isnan(row["low"]):
            yield f"`{row['arm']}` against `{reference}`: nothing can be told without an interval ({row['note']})."
        elif not row["distinguishable"]:
            yield (
                f"`{row['arm']}` is not distinguishable from `{reference}` on the {MEAN_OF_TASKS}: {_interval(row)} "
                f"over {row['paired_seeds']} seeds."
            )
        if row["note"] and not math.isnan(row["low"]):
            yield f"`{row['arm']}` against `{reference}`: {row['note']}."
    tokens = summary.drop_duplicates("arm")["train_tokens"]
    if tokens.max() > 1.001 * tokens.min():
        yield "The arms were not trained on equally many tokens: their scores do not compare."
    seeds = summary.drop_duplicates("arm")["seeds"]
    if seeds.nunique() > 1:
        yield "Not all arms have all seeds: their means are over different ones. Differences are over those both have."


def _of_task(summary: "pd.DataFrame", task: str, arms: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        summary[summary["task"] == task].set_index("arm", drop=False).loc[arms].to_dict("records")
    )
    return rows


def _difference(row: dict[str, Any]) -> str:
    if math.isnan(row["low"]):
        return "-" if math.isnan(row["difference"]) else f"{row['difference']:+.4f}"
    return _interval(row) + ("" if row["distinguishable"] else f" {_UNSURE}")


def _interval(row: dict[str, Any]) -> str:
    return f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"


def _probability(probability: float) -> str:
    if math.isnan(probability):
        return ""
    if 0.01 <= probability <= 0.99:
        return f"{100 * probability:.0f} %"
    return "< 1 %" if probability < 0.5 else "> 99 %"


def _with_sd(mean: float, sd: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.4f}" if math.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"


def _bold(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold else text


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out cells so that they line up as plain text too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    lines = aligned(cells, separator=" | ", widths=widths)
    rule = " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
