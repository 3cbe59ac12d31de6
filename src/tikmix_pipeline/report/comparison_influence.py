"""Is influence the same later in training, and is the mixture it praises the better one?

**Ranks over rounds.** Spearman's correlation, over the domains, of a task's influence at the end of two rounds;
averaged over tasks, and over arms within a seed. The interval is the middle 95 % of a bootstrap that draws seeds and
tasks independently of each other (arms of a seed share their first round: they are no replicates); with one seed, tasks
alone. `reachable` is how high the correlation of a truth that did not change at all would come, given the standard
errors (Spearman 1904): √(q_r q_s) with q = 1 − mean squared standard error / variance of the influence over domains. It
is made for Pearson's correlation and takes the errors of domains and of rounds to be independent, so it is a guide, not
a bound.

**Total influence against the score.** The total influence of a mixture w is Σ_t Σ_j S_tj w_j at one checkpoint; for
`scaled`, each task's row is first divided by its largest absolute entry, so that no task outweighs the others. It is
correlated over mixtures with minus their final mean bits per byte: positive where more influence came with a better
score.

Axes: A arms, S seeds, T tasks, K domains, B resamples.
"""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.comparison_scores import check_table
from tikmix_pipeline.statistics import CORRELATIONS, Floats, fisher_interval, mean_of_defined, middle_interval, spearman

if TYPE_CHECKING:
    import pandas as pd

ALL_ARMS = "all arms"

_COLUMNS = ("arm", "round", "other_round", "spearman", "low", "high", "reachable", "seeds", "tasks", "resampled")


def rank_stability(influence: "pd.DataFrame", *, resamples: int = 1000, seed: int = 0) -> "pd.DataFrame":
    """Correlate the ranks of domains between every two rounds, for each arm and for all arms.

    Args:
        influence: columns `arm`, `seed`, `round`, `task`, `domain`, `influence`, `stderr`. Arms may have measured in
            different rounds.
        resamples: how often the bootstrap draws.
        seed: decides the resamples.

    Returns:
        Columns `arm` (the last is `ALL_ARMS`), `round`, `other_round` (the later one), `spearman`, `low`, `high`,
        `reachable`, `seeds`, `tasks`, `resampled` (what the bootstrap drew: "seeds and tasks", "seeds", "tasks" or
        "nothing", which leaves no interval). Pairs of rounds that no run has both of have no row: if no run measured
        twice, there are none.

    Raises:
        TikmixError: a column is missing, or there are two rows of one domain.
    """
    import pandas as pd

    keys = ("arm", "seed", "round", "task", "domain")
    check_table(influence, "influence", keys=keys, values=("influence", "stderr"))
    if not len(influence):
        return pd.DataFrame(columns=list(_COLUMNS))
    wide = influence.pivot(index=["arm", "seed", "task"], columns=["round", "domain"], values=["influence", "stderr"])
    arms = list(influence["arm"].unique())
    rows = [
        {"arm": arm, "round": first, "other_round": second, **figures}
        for first, second in combinations(sorted(influence["round"].unique()), 2)
        for arm, figures in _stability(_correlations(wide, first, second), arms, resamples, seed)
    ]
    order = {arm: place for place, arm in enumerate([*arms, ALL_ARMS])}
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    return table.sort_values("arm", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def mixture_influence(influence: "pd.DataFrame", mixtures: "pd.DataFrame") -> "pd.DataFrame":
    """Return the total influence of each arm's mixture, by what was measured in its seed.

    Args:
        influence: columns `seed`, `task`, `domain`, `influence`: one measurement per seed.
        mixtures: columns `arm`, `seed`, `domain`, `weight`: one mixture per arm and seed.

    Returns:
        Columns `arm, seed, total, scaled`; seeds that were not measured are left out.

    Raises:
        TikmixError: a column is missing, or a mixture is of other domains than the measurement.
    """
    import pandas as pd

    check_table(influence, "influence", keys=("seed", "task", "domain"), values=("influence",))
    check_table(mixtures, "mixtures", keys=("arm", "seed", "domain"), values=("weight",))
    measured = {
        seed: rows.pivot(index="task", columns="domain", values="influence") for seed, rows in influence.groupby("seed")
    }
    found = []
    for (arm, seed), rows in mixtures.groupby(["arm", "seed"], sort=False):
        if seed not in measured:
            continue
        influence_TK = measured[seed].to_numpy(dtype=np.float64)
        domains = list(measured[seed].columns)
        if set(domains) != set(rows["domain"]):
            raise TikmixError(
                f"Arm '{arm}', seed {seed}: its mixture is of {', '.join(sorted(rows['domain']))}, its seed's "
                f"influence of {', '.join(domains)}. Compare arms of one corpus."
            )
        weight_K = rows.set_index("domain")["weight"][domains].to_numpy(dtype=np.float64)
        largest_T1 = np.abs(influence_TK).max(axis=1, keepdims=True)
        scaled_TK = influence_TK / np.where(largest_T1 > 0, largest_T1, 1)
        totals = {"total": (influence_TK @ weight_K).sum(), "scaled": (scaled_TK @ weight_K).sum()}
        found.append({"arm": arm, "seed": seed, **totals})
    return pd.DataFrame(found, columns=["arm", "seed", "total", "scaled"])


def influence_against_score(points: "pd.DataFrame") -> "pd.DataFrame":
    """Correlate mixtures' total influence with minus their bits per byte.

    A mixture is a point, on average over the seeds that all mixtures have: seeds of one mixture are no independent
    pairs.

    Args:
        points: columns `arm`, `seed`, `total`, `scaled` (of `mixture_influence`) and `bpb`, the final mean over tasks.
            Arms with a value that is not finite are left out.

    Returns:
        A row for `total` and one for `scaled`, columns `influence, mixtures, seeds, pearson, pearson_low, pearson_high,
        spearman, spearman_low, spearman_high, note`; intervals are Fisher's. If no seed has all arms, nothing is
        correlated, and the note says so.

    Raises:
        TikmixError: a column is missing, or an arm has two points of a seed.
    """
    import pandas as pd

    averaged, seeds, note = averaged_points(points)
    gain_1N = -averaged[["bpb"]].to_numpy(dtype=np.float64).T
    rows = []
    for name in ("total", "scaled"):
        influence_1N = averaged[[name]].to_numpy(dtype=np.float64).T
        row: dict[str, Any] = {"influence": name, "mixtures": len(averaged), "seeds": seeds}
        for kind, correlate in CORRELATIONS.items():
            # rounding may leave a perfect correlation just beyond 1
            correlation = float(np.clip(correlate(influence_1N, gain_1N), -1, 1)[0]) if len(averaged) else math.nan
            low, high = fisher_interval(correlation, len(averaged), kind)
            row |= {kind: correlation, f"{kind}_low": low, f"{kind}_high": high}
        rows.append({**row, "note": note})
    return pd.DataFrame(rows)


def averaged_points(points: "pd.DataFrame") -> "tuple[pd.DataFrame, int, str]":
    """Return a point per arm, over how many seeds it is averaged, and what was left out.

    `points` has the columns `arm`, `seed`, `total`, `scaled` and `bpb`.

    Raises:
        TikmixError: a column is missing, or an arm has two points of a seed.
    """
    values = ["total", "scaled", "bpb"]
    check_table(points, "mixtures' scores", keys=("arm", "seed"), values=values)
    undefined = points.loc[~np.isfinite(points[values].to_numpy(dtype=np.float64)).all(axis=1), "arm"].unique()
    kept = points[~points["arm"].isin(undefined)]
    arms_of_seed = kept.groupby("seed")["arm"].nunique()
    seeds = arms_of_seed.index[arms_of_seed == kept["arm"].nunique()]
    averaged = kept[kept["seed"].isin(seeds)].groupby("arm", sort=False)[values].mean().reset_index()
    remarks = [f"left out, as not finite: {', '.join(undefined)}"] if len(undefined) else []
    if len(kept) and not len(seeds):
        remarks.append("no seed has all arms")
    elif len(seeds) < points["seed"].nunique():
        remarks.append(f"only over the seeds that all have: {', '.join(map(str, seeds))}")
    return averaged, len(seeds), "; ".join(remarks)


def _correlations(wide: "pd.DataFrame", first: int, second: int) -> "pd.DataFrame":
    """Return the rank correlation of two rounds, and the reachable one, of each arm, seed and task."""
    import pandas as pd

    one_NK, other_NK = (wide["influence"][number].to_numpy(dtype=np.float64) for number in (first, second))
    quality_N = [_reliability(wide, number) for number in (first, second)]
    found = {"spearman": spearman(one_NK, other_NK), "reachable": np.sqrt(quality_N[0] * quality_N[1])}
    return pd.DataFrame(found, index=wide.index)


def _reliability(wide: "pd.DataFrame", number: int) -> Floats:
    """Return the share of the variance over domains that is not the measurement's noise; nan where there is none."""
    influence_NK, stderr_NK = (wide[of][number].to_numpy(dtype=np.float64) for of in ("influence", "stderr"))
    if influence_NK.shape[1] < 2:
        return np.full(len(influence_NK), np.nan)
    variance_N = influence_NK.var(axis=1, ddof=1)
    noise_N = np.full(len(variance_N), np.nan)
    np.divide((stderr_NK**2).mean(axis=1), variance_N, out=noise_N, where=variance_N > 0)
    reliability_N: Floats = np.maximum(1 - noise_N, 0)
    return reliability_N


def _stability(
    found: "pd.DataFrame", arms: list[str], resamples: int, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the figures of each arm that has both rounds, and of all arms."""
    defined = found.dropna(subset=["spearman"])
    for arm in [*arms, ALL_ARMS]:
        rows = defined if arm == ALL_ARMS else defined[defined.index.get_level_values("arm") == arm]
        if not len(rows):
            continue
        of_seeds = rows.groupby(level=["seed", "task"]).mean()
        spearman_ST = of_seeds["spearman"].unstack("task").to_numpy()
        low, high, resampled = _interval(spearman_ST, resamples, seed)
        seeds, tasks = spearman_ST.shape
        yield (
            arm,
            {
                "spearman": float(mean_of_defined(spearman_ST, axis=(0, 1))),
                "low": low,
                "high": high,
                "reachable": float(of_seeds["reachable"].mean()),
                "seeds": seeds,
                "tasks": tasks,
                "resampled": resampled,
            },
        )


def _interval(spearman_ST: Floats, resamples: int, seed: int) -> tuple[float, float, str]:
    """Return the middle of the means over seeds and tasks drawn with replacement, and which of them vary."""
    drawn = [name for name, size in zip(("seeds", "tasks"), spearman_ST.shape, strict=True) if size > 1]
    if not drawn:
        return math.nan, math.nan, "nothing"
    generator = np.random.default_rng(seed)
    seeds_BS, tasks_BT = (generator.integers(size, size=(resamples, size)) for size in spearman_ST.shape)
    means_B = mean_of_defined(spearman_ST[seeds_BS[:, :, None], tasks_BT[:, None, :]], axis=(1, 2))
    return *middle_interval(means_B), " and ".join(drawn)
