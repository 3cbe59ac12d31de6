"""What the runs of a comparison made, as tables of all arms and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tikmix_pipeline.parameters.comparison import PointParameters
from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.compare.arms import Arm, arms_without
from tikmix_pipeline.pipelines.names import decision_costs, of_round
from tikmix_pipeline.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.lm.cost_records import CostRecord
    from tikmix_pipeline.mixture.records import DecisionCost

MEASURES = {"text": "bpb", "answer": "bpb_answer", "choice": "choice"}
"""The columns that the measures of an evaluation stand in: two of bits per byte, one of nats per item."""


def scores_of(arm: Arm, run: Run, deciding: Sequence[str]) -> pd.DataFrame:
    """Return an arm's last checkpoint's scores on every task and domain, and what its mixtures cost."""
    table = _split_scores(run.load("final_evaluation"), deciding)
    costs = list(_costs(run))
    rounds = run.parameters.tikmix.rounds
    return table.assign(
        arm=arm.name,
        seed=arm.seed,
        method_flops=sum((cost.flops for _, cost in costs), 0.0),
        method_tokens=sum(cost.tokens for _, cost in costs),
        train_tokens=rounds * run.parameters.train.tokens_per_chunk,
    )[["arm", "seed", "task", "split", *MEASURES.values(), "method_flops", "method_tokens", "train_tokens"]]


def rounds_of(arm: Arm, run: Run) -> pd.DataFrame:
    """Return training tokens, tokens spent on deciding, and mean bits per byte of the tasks after each round."""
    import pandas as pd

    spent: dict[int, float] = {}
    for number, cost in _costs(run):
        spent[number] = spent.get(number, 0) + cost.tokens
    chunk = run.parameters.train.tokens_per_chunk
    rows = []
    for number in range(run.parameters.tikmix.rounds):
        evaluation = run.load(of_round(number, "evaluation"))
        of_tasks = evaluation[(evaluation["kind"] == "task") & (evaluation["measure"] == "text")]
        score = of_tasks["bits_per_byte"].mean()
        rows.append((arm.name, arm.seed, number, (number + 1) * chunk, score, spent.get(number, 0)))
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "train_tokens", "bpb", "method_tokens"])


def mixtures_of(arm: Arm, run: Run) -> pd.DataFrame:
    """Return the weights that each round was trained under."""
    import pandas as pd

    rows = [
        (arm.name, arm.seed, number, domain, weight)
        for number in range(run.parameters.tikmix.rounds)
        for domain, weight in run.load(of_round(number, "mixture")).weights.items()
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "domain", "weight"])


def influence_of(arm: Arm, run: Run) -> pd.DataFrame:
    """Return the influence that the arm measured, at the end of each round; no rows where it measured none."""
    import pandas as pd

    measured = [
        run.load(of_round(number, "influence")).assign(arm=arm.name, seed=arm.seed, round=number)
        for number in _measured_rounds(run)
    ]
    columns = ["arm", "seed", "round", "task", "domain", "influence", "stderr"]
    return pd.concat(measured)[columns] if measured else pd.DataFrame(columns=columns)


def points_of(
    scores: pd.DataFrame, mixtures: pd.DataFrame, influence: pd.DataFrame, compare: PointParameters
) -> pd.DataFrame:
    """Return, per arm and seed, the influence of the mixture that follows the shared round and the final mean score.

    The influence is that of the shared checkpoint, measured as the comparison itself is told to: by any arm that sets
    nothing of `influence`. Arms with a first round or a training of their own have no point. Of arms with one and the
    same mixture the first stands for all: they are no further evidence.
    """
    from tikmix_pipeline.report.comparison_influence import mixture_influence

    trained_alike = arms_without(compare, "tikmix.prior", "tikmix.rounds", "train")
    measured_alike = set(trained_alike) & set(arms_without(compare, "influence"))
    shared = influence[(influence["round"] == 0) & influence["arm"].isin(measured_alike)]
    shared = shared.drop_duplicates(["seed", "task", "domain"])
    following = mixtures[(mixtures["round"] == 1) & mixtures["arm"].isin(trained_alike)]
    different = following.pivot_table(index="arm", columns=["seed", "domain"], values="weight", sort=False)
    chosen = following["arm"].isin(different.drop_duplicates().index)
    points = mixture_influence(shared, following[chosen])
    final = scores[scores["split"] == "in_domain"].groupby(["arm", "seed"], sort=False)["bpb"].mean().reset_index()
    return points.merge(final, on=["arm", "seed"])


def _split_scores(evaluation: pd.DataFrame, deciding: Sequence[str]) -> pd.DataFrame:
    """Return a row per task and domain, its measures side by side; tasks that do not decide are out of domain."""
    scored = evaluation.assign(score=evaluation["bits_per_byte"].fillna(evaluation["nats_per_item"]))
    wide = scored.pivot(index=["kind", "name"], columns="measure", values="score").reindex(columns=[*MEASURES])
    order = evaluation[["kind", "name"]].drop_duplicates().itertuples(index=False, name=None)
    table = wide.reindex(list(order)).rename(columns=MEASURES).reset_index().rename(columns={"name": "task"})
    kinds = zip(table["kind"], table["task"], strict=True)
    table["split"] = [
        "heldout" if kind == "domain" else "in_domain" if task in deciding else "out_of_domain" for kind, task in kinds
    ]
    return table


def _measured_rounds(run: Run) -> list[int]:
    tikmix = run.parameters.tikmix
    return [] if tikmix.strategy in BASELINES else list(range(tikmix.deciding_rounds))


def _costs(run: Run) -> Iterator[tuple[int, CostRecord | DecisionCost]]:
    """Yield what was spent to decide the mixture of each round."""
    for number, name in decision_costs(run, run.parameters.tikmix.deciding_rounds):
        yield number, run.load(name).cost
