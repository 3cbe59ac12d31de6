"""Scores of all arms and seeds side by side, with their means.

In-domain tasks guide a mixture by their query half and are scored on their evaluation half; out-of-domain tasks only
judge; held-out text is of the training domains. A mean is of one arm and seed, all tasks weighted equally: a mean with
an undefined member is undefined, as it would otherwise be of easier or harder tasks than another arm's.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.comparison_checks import check_table

if TYPE_CHECKING:
    import pandas as pd

Measure = Literal["bpb", "bpb_answer"]
"""Bits per byte of whole items (question and answer), or of the gold answers alone, which held-out text has none of."""

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


def wide_scores(scores: "pd.DataFrame", measure: Measure = "bpb") -> "pd.DataFrame":
    """Return a row per arm and seed and a column per split and task, means included.

    Arms and tasks keep the order of their first appearance; seeds are sorted. The mean of a split stands after its
    tasks, the mean of all tasks after both their splits. What is not finite becomes nan.

    Args:
        scores: columns `arm`, `seed`, `task`, `split`, the measure and the costs.
        measure: the column to compare by.

    Raises:
        TikmixError: a column, a score or any task is missing, there are two of one, or a split has another name.
    """
    import pandas as pd

    check_scores(scores, measure)
    rows = scored_rows(scores, measure)
    wide = rows.pivot(index=["arm", "seed"], columns=["split", "task"], values=measure)
    arms = [
        (arm, seed) for arm in rows["arm"].unique() for seed in sorted(rows.loc[rows["arm"] == arm, "seed"].unique())
    ]
    values = wide.loc[arms].astype(np.float64)
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


def scored_rows(scores: "pd.DataFrame", measure: Measure) -> "pd.DataFrame":
    """Return the rows that the measure is defined for."""
    return scores if measure == "bpb" else scores[scores["split"] != HELDOUT]


def is_task(wide: "pd.DataFrame") -> npt.NDArray[np.bool_]:
    """Tell the columns of `wide_scores` that are single tasks, neither held-out text nor a mean."""
    return np.array(
        [split in (IN_DOMAIN, OUT_OF_DOMAIN) and task != MEAN_OF_SPLIT[split] for split, task in wide.columns]
    )


def check_scores(scores: "pd.DataFrame", measure: Measure = "bpb") -> None:
    """Check that every arm and seed was scored on the same texts, and says one thing of its costs.

    Raises:
        TikmixError: otherwise.
    """
    check_table(scores, "scores", keys=("arm", "seed", "split", "task"), values=(measure, *COSTS))
    if not len(scores):
        raise TikmixError("The table of scores has no rows. Finish at least one arm and seed, then compare again.")
    unknown = sorted(set(scores["split"]) - set(SPLITS))
    if unknown:
        raise TikmixError(f"The table of scores has the split {', '.join(unknown)}: expected {', '.join(SPLITS)}.")
    if not scores["split"].isin((IN_DOMAIN, OUT_OF_DOMAIN)).any():
        raise TikmixError("The table of scores has no tasks, only held-out text. Give the corpus a task to judge by.")
    texts = set(zip(scores["split"], scores["task"], strict=True))
    for (arm, seed), rows in scores.groupby(["arm", "seed"], sort=False):
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
