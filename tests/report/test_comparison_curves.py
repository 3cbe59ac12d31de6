import pandas as pd
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.comparison_curves import loss_curves

ROUNDS = pd.DataFrame(
    [(arm, seed, number, 100 * (number + 1), 3.0 - number) for arm in "ba" for seed in (0, 1) for number in (1, 0, 2)],
    columns=["arm", "seed", "round", "train_tokens", "bpb"],
)


def costs(*rows: tuple[str, int, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "method_tokens"])


def totals(curves: pd.DataFrame, arm: str, seed: int) -> list[float]:
    return curves[(curves["arm"] == arm) & (curves["seed"] == seed)]["total_tokens"].tolist()


def test_cost_counts_from_the_round_that_it_decided_on():
    curves = loss_curves(ROUNDS, costs(("b", 0, 1, 7.0), ("b", 0, 1, 3.0), ("b", 0, 2, 5.0), ("a", 1, 2, 1.0)))
    assert totals(curves, "b", 0) == [100, 210, 315]
    assert totals(curves, "b", 1) == [100, 200, 300]
    assert totals(curves, "a", 1) == [100, 200, 301]


def test_rounds_are_sorted_within_a_run_and_arms_keep_their_order():
    curves = loss_curves(ROUNDS, costs())
    assert list(curves["arm"].unique()) == ["b", "a"]
    assert curves["round"].tolist() == [0, 1, 2] * 4


def test_cost_of_a_round_that_was_not_trained_is_refused():
    with pytest.raises(TikmixError, match="Arm 'b', seed 0, has a cost of deciding round 3, but no score"):
        loss_curves(ROUNDS, costs(("b", 0, 3, 7.0)))
