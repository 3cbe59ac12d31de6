"""What each arm had read, all told, when it was how good: training tokens and those spent on deciding."""

from typing import TYPE_CHECKING

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.comparison_checks import check_table

if TYPE_CHECKING:
    import pandas as pd

_RUN = ["arm", "seed"]


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
    check_table(rounds, "rounds", keys=(*_RUN, "round"), values=("train_tokens", "bpb"))
    sums = costs.groupby([*_RUN, "round"])["method_tokens"].sum().astype("float64")
    known = rounds.set_index([*_RUN, "round"]).index
    strange = sums.index.difference(known)
    if len(strange):
        arm, seed, number = strange[0]
        raise TikmixError(
            f"Arm '{arm}', seed {seed}, has a cost of deciding round {number}, but no score after that round. Give a "
            "cost the round that was trained on what it decided."
        )
    order = {arm: place for place, arm in enumerate(rounds["arm"].unique())}
    curves = rounds.sort_values(
        [*_RUN, "round"], key=lambda column: column.map(order) if column.name == "arm" else column
    )
    spent = sums.reindex(curves.set_index([*_RUN, "round"]).index, fill_value=0).to_numpy()
    curves = curves.assign(method_tokens=spent).reset_index(drop=True)
    curves["method_tokens"] = curves.groupby(_RUN, sort=False)["method_tokens"].cumsum()
    return curves.assign(total_tokens=curves["train_tokens"] + curves["method_tokens"])
