"""What every arm and seed of a comparison scored, what that took, and whether one arm is better than another.

In-domain tasks guide a mixture by their query half and are scored on their evaluation half; out-of-domain tasks only
judge; held-out text is of the training domains. A mean is of one arm and seed, all tasks weighted equally: a mean with
an undefined member is undefined, as it would otherwise be of easier or harder tasks than another arm's.

All arms of a seed start from the same weights and read in the same order, so they are compared seed by seed
(`statistics.PairedDifference`). Each interval is by itself: where there is nothing to find, some of eleven
independent intervals would exclude 0 four times in ten.

A table of scores has the columns `arm`, `seed`, `task`, `split`, the measure to compare by, and `COSTS`. A function
that takes one raises TikmixError where a column, a score or any task is missing, where there are two of one, or where
an arm and seed has more than one cost.

Axes: A arms, S seeds, T tasks, C columns of scores.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.statistics import PairedDifference, paired_difference

if TYPE_CHECKING:
    import pandas as pd

Measure = Literal["bpb", "bpb_answer", "choice"]
"""Bits per byte of whole items (question and answer); of the gold answers alone, which held-out text has none of; or
the loss of the right choice in nats per item, of tasks with options alone."""

IN_DOMAIN, OUT_OF_DOMAIN, HELDOUT = SPLITS = ("in_domain", "out_of_domain", "heldout")

ALL_TASKS = "all"
"""The split of the mean over in-domain and out-of-domain tasks."""

MEAN_OF_TASKS = "mean of all tasks"

MEAN_OF_SPLIT = {
    IN_DOMAIN: "mean of in-domain tasks",
    OUT_OF_DOMAIN: "mean of out-of-domain tasks",
    HELDOUT: "mean of held-out text",
}

COSTS = ("train_tokens", "method_tokens", "method_flops")
"""Columns that say one thing of an arm and seed on all its rows."""

_RUN = ["arm", "seed"]


def wide_scores(scores: "pd.DataFrame", measure: Measure = "bpb") -> "pd.DataFrame":
    """Return a row per arm and seed and a column per split and task, means included.

    Arms and tasks keep the order of their first appearance; seeds are sorted. The mean of a split stands after its
    tasks, the mean of all tasks after both their splits. What is not finite becomes nan. Tasks without options have no
    column, and no say in the means, where the measure is `choice`.
    """
    import pandas as pd

    _check_scores(scores, measure)
    rows = scores[_is_measured(scores, measure)]
    wide = rows.pivot(index=_RUN, columns=["split", "task"], values=measure)
    runs = [
        (arm, seed) for arm in rows["arm"].unique() for seed in sorted(rows.loc[rows["arm"] == arm, "seed"].unique())
    ]
    values = wide.loc[runs].astype(np.float64)
    values = values.where(np.isfinite(values))
    columns = {}
    for split in SPLITS:
        tasks = list(rows.loc[rows["split"] == split, "task"].unique())
        columns.update({(split, task): values[split, task] for task in tasks})
        if tasks:
            columns[split, MEAN_OF_SPLIT[split]] = values[split].mean(axis=1, skipna=False)
        if split == OUT_OF_DOMAIN:
            judged = [key for key in columns if key[1] != MEAN_OF_SPLIT[key[0]]]
            columns[ALL_TASKS, MEAN_OF_TASKS] = values[judged].mean(axis=1, skipna=False)
    return pd.DataFrame(columns).rename_axis(columns=["split", "task"])


def measures_of(scores: "pd.DataFrame") -> list[Measure]:
    """Return what the texts were scored by; by choices only where a task has options."""
    both: list[Measure] = ["bpb", "bpb_answer"]
    return [*both, "choice"] if "choice" in scores and scores["choice"].notna().any() else both


def _is_measured(scores: "pd.DataFrame", measure: Measure) -> "pd.Series[bool]":
    """Tell the rows of texts that can be scored by the measure at all."""
    if measure == "choice":
        return scores["choice"].notna().groupby(scores["task"]).transform("any") & (scores["split"] != HELDOUT)
    return (scores["split"] != HELDOUT) | (measure == "bpb")


def is_task(wide: "pd.DataFrame") -> npt.NDArray[np.bool_]:
    """Tell the columns of `wide_scores` that are single tasks, neither held-out text nor a mean."""
    return np.array(
        [split in (IN_DOMAIN, OUT_OF_DOMAIN) and task != MEAN_OF_SPLIT[split] for split, task in wide.columns]
    )


def arm_statistics(scores: "pd.DataFrame", *, measure: Measure = "bpb") -> "pd.DataFrame":
    """Return mean and standard deviation over an arm's seeds, of each task and each mean of tasks.

    Returns:
        Columns `arm, split, task, seeds, mean, sd`; sd is nan with a single seed.
    """
    import pandas as pd

    wide = wide_scores(scores, measure)
    rows = []
    for arm in _arms_of(wide):
        values_SC = wide.loc[arm].to_numpy()
        seeds = len(values_SC)
        sd_C = values_SC.std(axis=0, ddof=1) if seeds > 1 else np.full(values_SC.shape[1], np.nan)
        rows += [
            {"arm": arm, "split": split, "task": task, "seeds": seeds, "mean": float(mean), "sd": float(sd)}
            for (split, task), mean, sd in zip(wide.columns, values_SC.mean(axis=0), sd_C, strict=True)
        ]
    return pd.DataFrame(rows)


def paired_differences(
    scores: "pd.DataFrame", *, reference: str, measure: Measure = "bpb", level: float = 0.95
) -> "pd.DataFrame":
    """Compare every other arm with the arm `reference`, over the seeds that both have, by intervals of that level.

    Returns:
        Columns `arm, reference, split, task, seeds`, those of `PairedDifference` (of arm minus reference),
        `distinguishable` and `note`. The note says what is out of the ordinary: fewer seeds than there are, no
        interval, scores that are not finite; else it is empty.

    Raises:
        TikmixError: `reference` has no scores.
    """
    import pandas as pd

    wide = wide_scores(scores, measure)
    arms = _arms_of(wide)
    if reference not in arms:
        raise TikmixError(
            f"There are no scores of '{reference}', which the arms are compared with, only of {', '.join(arms)}. "
            "Finish its runs, or compare with one of these."
        )
    rows = [
        {"arm": arm, "reference": reference, "split": split, "task": task, **figures}
        for arm in arms
        if arm != reference
        for (split, task), figures in zip(wide.columns, _differences(wide, arm, reference, level), strict=True)
    ]
    figures_of_pairs = [field.name for field in fields(PairedDifference)]
    columns = ["arm", "reference", "split", "task", "seeds", *figures_of_pairs, "distinguishable", "note"]
    return pd.DataFrame(rows, columns=columns)


def best_on(scores: "pd.DataFrame", *, measure: Measure = "bpb") -> "pd.DataFrame":
    """Count the tasks on which an arm's mean over seeds is the best; arms that tie share the task.

    The means are over the seeds that all arms have, or if there is no such seed, over each arm's own. Held-out text
    does not count. An arm with an undefined mean is not best.

    Returns:
        Columns `arm, best_on, tasks`; tasks is how many there are.
    """
    import pandas as pd

    wide = wide_scores(scores, measure)
    tasks, arms = wide.loc[:, is_task(wide)], _arms_of(wide)
    shared = set.intersection(*(set(wide.loc[arm].index) for arm in arms))
    if shared:
        tasks = tasks[tasks.index.isin(shared, level="seed")]
    mean_AT = np.stack([tasks.loc[arm].to_numpy().mean(axis=0) for arm in arms])
    mean_AT = np.where(np.isnan(mean_AT), np.inf, mean_AT)
    wins_AT = (mean_AT == mean_AT.min(axis=0)) & np.isfinite(mean_AT)
    share_A = (wins_AT / np.maximum(wins_AT.sum(axis=0), 1)).sum(axis=1)
    return pd.DataFrame({"arm": arms, "best_on": share_A, "tasks": tasks.shape[1]})


def arm_costs(scores: "pd.DataFrame") -> "pd.DataFrame":
    """Return what an arm read and what it spent on deciding, on average over its seeds.

    Returns:
        Columns `arm, seeds, train_tokens, method_tokens, method_flops, method_share`, the last being method tokens per
        training token.
    """
    _check_scores(scores, "bpb")
    of_runs = scores.drop_duplicates(_RUN).groupby("arm", sort=False)
    costs = of_runs[list(COSTS)].mean()
    costs.insert(0, "seeds", of_runs.size())
    return costs.assign(method_share=costs["method_tokens"] / costs["train_tokens"]).reset_index()


def loss_curves(rounds: "pd.DataFrame", costs: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rounds with what had been spent on deciding until their end.

    A token of a small proxy model counts like one of the model itself; operations are the fairer currency between
    methods that train proxies of another size.

    Args:
        rounds: columns `arm`, `seed`, `round`, `train_tokens` (read in training until the end of the round) and `bpb`.
        costs: columns `arm`, `seed`, `round` and `method_tokens`: what deciding the mixture of that round took. Several
            rows of a round add up; an arm that spends nothing needs none.

    Returns:
        `rounds`, sorted by round within an arm and seed, with the columns `method_tokens` (spent until then) and
        `total_tokens`.

    Raises:
        TikmixError: a column is missing, or a cost is of a round that was not scored.
    """
    keys = [*_RUN, "round"]
    check_table(rounds, "rounds", keys=keys, values=("train_tokens", "bpb"))
    sums = costs.groupby(keys)["method_tokens"].sum().astype("float64")
    unscored = sums.index.difference(rounds.set_index(keys).index)
    if len(unscored):
        arm, seed, number = unscored[0]
        raise TikmixError(
            f"Arm '{arm}', seed {seed}, has a cost of deciding round {number}, but no score after that round. Give a "
            "cost the round that was trained on what it decided."
        )
    order = {arm: place for place, arm in enumerate(rounds["arm"].unique())}
    curves = rounds.sort_values(keys, key=lambda column: column.map(order) if column.name == "arm" else column)
    spent = sums.reindex(curves.set_index(keys).index, fill_value=0).to_numpy()
    curves = curves.assign(method_tokens=spent).reset_index(drop=True)
    curves["method_tokens"] = curves.groupby(_RUN, sort=False)["method_tokens"].cumsum()
    return curves.assign(total_tokens=curves["train_tokens"] + curves["method_tokens"])


def check_table(table: "pd.DataFrame", name: str, *, keys: Sequence[str], values: Sequence[str]) -> None:
    """Refuse a table, called by its name, that lacks a column or has two rows of the same keys."""
    missing = [column for column in (*keys, *values) if column not in table.columns]
    if missing:
        raise TikmixError(
            f"The table of {name} lacks the column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}. "
            "Write it again with this version of the project."
        )
    twice = table.duplicated(list(keys))
    if twice.any():
        row = table.loc[twice, list(keys)].iloc[0]
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        raise TikmixError(
            f"The table of {name} has two rows of {where}. Give every row an arm, seed and name of its own."
        )


def _check_scores(scores: "pd.DataFrame", measure: Measure) -> None:
    """Check that every arm and seed was scored on the same texts, and says one thing of its costs."""
    check_table(scores, "scores", keys=("arm", "seed", "split", "task"), values=(measure, *COSTS))
    if not len(scores):
        raise TikmixError("The table of scores has no rows. Finish at least one arm and seed, then compare again.")
    unknown = sorted(set(scores["split"]) - set(SPLITS))
    if unknown:
        raise TikmixError(f"The table of scores has the split {', '.join(unknown)}: expected {', '.join(SPLITS)}.")
    if not scores["split"].isin((IN_DOMAIN, OUT_OF_DOMAIN)).any():
        raise TikmixError("The table of scores has no tasks, only held-out text. Give the corpus a task to judge by.")
    texts = set(zip(scores["split"], scores["task"], strict=True))
    for (arm, seed), rows in scores.groupby(_RUN, sort=False):
        lacks = sorted(texts - set(zip(rows["split"], rows["task"], strict=True)))
        if lacks:
            split, task = lacks[0]
            more = f" and {len(lacks) - 1} more" if len(lacks) > 1 else ""
            raise TikmixError(
                f"Arm '{arm}', seed {seed}, has no score of {task} ({split}){more}, which other arms have: their means "
                "would not be of the same texts. Score it again with the tasks of the others."
            )
        differing = [cost for cost in COSTS if rows[cost].nunique(dropna=False) > 1]
        if differing:
            raise TikmixError(f"Arm '{arm}', seed {seed}, has more than one {differing[0]}. Write its scores again.")


def _arms_of(wide: "pd.DataFrame") -> list[str]:
    return list(wide.index.unique("arm"))


def _differences(wide: "pd.DataFrame", arm: str, reference: str, level: float) -> list[dict[str, Any]]:
    """Compare two arms in every column."""
    either = sorted({*wide.loc[arm].index, *wide.loc[reference].index})
    seeds = [seed for seed in either if seed in wide.loc[arm].index and seed in wide.loc[reference].index]
    difference_SC = wide.loc[arm].loc[seeds].to_numpy() - wide.loc[reference].loc[seeds].to_numpy()
    rows = []
    for difference_S in difference_SC.T:
        found = paired_difference(difference_S, level=level)
        note = _note(difference_S, seeds, either)
        rows.append({"seeds": len(seeds), **asdict(found), "distinguishable": found.distinguishable, "note": note})
    return rows


def _note(difference_S: npt.NDArray[np.float64], seeds: Sequence[Hashable], either: Sequence[Hashable]) -> str:
    undefined = [seed for seed, value in zip(seeds, difference_S, strict=True) if np.isnan(value)]
    if not seeds:
        return "no seed in common"
    remarks = []
    if len(seeds) < len(either):
        remarks.append(f"only over the seeds that both have: {', '.join(map(str, seeds))}")
    if undefined:
        remarks.append(f"no finite score of both at seed {', '.join(map(str, undefined))}")
    elif len(seeds) == 1:
        remarks.append("one seed: no interval")
    return "; ".join(remarks)
