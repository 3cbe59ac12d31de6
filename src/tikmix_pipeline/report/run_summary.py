"""What a whole run comes to: its mixtures and scores, round by round, and its last decision."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tikmix_pipeline.mixture.decision import holder, in_words
from tikmix_pipeline.mixture.records import DecisionRecord, MixtureRecord
from tikmix_pipeline.record import Record

if TYPE_CHECKING:
    import pandas as pd

Scores = dict[str, dict[str, float]]
"""Bits per byte by kind (`task`, `domain`) and name: of the answer for tasks, of the text for domains."""


class RunSummary(Record):
    """`summary.json`."""

    mixtures: tuple[MixtureRecord, ...]
    """Those of all rounds, and the one to come."""
    bits_per_byte: tuple[Scores, ...]
    """After each round, within the round's limits."""
    final_bits_per_byte: Scores
    """After the last round, on all evaluation data."""
    response: str | None
    """What the last decision's surrogate was fitted on, if there was one."""
    expected_gain: Mapping[str, int | float]
    """By task; empty where the prior was kept."""
    notes: tuple[str, ...]
    held: dict[str, str]
    """What holds each domain, group or task back, in words."""

    def task_scores(self) -> "pd.DataFrame":
        """Return `round`, `task` and `bits_per_byte` after each round."""
        import pandas as pd

        rows = [
            (number, task, value)
            for number, scores in enumerate(self.bits_per_byte)
            for task, value in scores["task"].items()
        ]
        return pd.DataFrame(rows, columns=["round", "task", "bits_per_byte"])


def run_summary(
    final: "pd.DataFrame",
    decision: DecisionRecord,
    mixtures: Sequence[MixtureRecord],
    evaluations: Sequence["pd.DataFrame"],
) -> RunSummary:
    """Gather what the rounds of a run have recorded.

    Args:
        final: scores on all evaluation data, after the last round.
        decision: the last round's.
        mixtures: of all rounds, and the one to come.
        evaluations: scores after each round.
    """
    is_used = decision.strategy != "prior"
    return RunSummary(
        mixtures=tuple(mixtures),
        bits_per_byte=tuple(map(_scores, evaluations)),
        final_bits_per_byte=_scores(final),
        response=decision.response,
        expected_gain=decision.expected_gain if is_used else {},
        notes=decision.notes if is_used else (),
        held={holder(one): in_words(one) for one in decision.binding} if is_used else {},
    )


def _scores(table: "pd.DataFrame") -> Scores:
    main = table[(table["kind"] == "domain") | (table["measure"] == "answer")]
    return {
        kind: dict(zip(rows["name"], rows["bits_per_byte"].tolist(), strict=True))
        for kind, rows in main.groupby("kind", sort=False)
    }
