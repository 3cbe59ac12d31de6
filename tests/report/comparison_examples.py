"""Small tables of scores, as `compare.parquet` holds them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

TEXTS = (
    ("piqa", "in_domain"),
    ("siqa", "in_domain"),
    ("arc", "out_of_domain"),
    ("code", "heldout"),
    ("web", "heldout"),
)


def scores_of(values: Mapping[tuple[str, int], float | Sequence[float]], **costs: float) -> pd.DataFrame:
    """Give each arm and seed one value for all texts, or one per text; `costs` holds method tokens by arm."""
    rows = []
    for (arm, seed), value in values.items():
        for (task, split), bpb in zip(TEXTS, np.broadcast_to(value, len(TEXTS)), strict=True):
            spent = costs.get(arm, 0.0)
            row = {"arm": arm, "seed": seed, "task": task, "split": split, "bpb": float(bpb)}
            answer = float("nan") if split == "heldout" else bpb / 2
            rows.append(
                row | {"bpb_answer": answer, "method_flops": 6e3 * spent, "method_tokens": spent, "train_tokens": 1000}
            )
    return pd.DataFrame(rows)


def normal_scores(arms: int, seeds: int, *, seed: int = 0) -> pd.DataFrame:
    """Draw arms whose seeds have a common part, in which unpaired differences would drown."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 1, seeds)
    return scores_of(
        {
            (f"arm-{arm}", s): 5 + common[s] + 0.1 * arm + rng.normal(0, 0.05, len(TEXTS))
            for arm in range(arms)
            for s in range(seeds)
        }
    )


def column(table: pd.DataFrame, arm: str, task: str) -> pd.Series:
    (row,) = (row for _, row in table[(table["arm"] == arm) & (table["task"] == task)].iterrows())
    return row
