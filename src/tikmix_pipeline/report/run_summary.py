"""What a whole run comes to: `summary.json`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.mixture.decision import holder, in_words, told_constraints
from tikmix_pipeline.mixture.records import AskedMixtures, ByDomain, DecisionRecord, MixtureRecord
from tikmix_pipeline.record import Record
from tikmix_pipeline.report.verdict import Verdict

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
    choice: tuple[Mapping[str, float], ...] = ()
    """The loss of the right choice in nats per item after each round, by task with options."""
    final_choice: Mapping[str, float] = {}
    response: str | None
    """What the last decision's surrogate was fitted on, if there was one."""
    expected_gain: Mapping[str, int | float]
    """By task, as the decision has it; empty where the prior was kept."""
    gain_scale: Mapping[str, int | float] | None = None
    """By task, what the expected gains are shares of; None where they are in a measured unit."""
    notes: tuple[str, ...]
    held: dict[str, str]
    """What holds each domain, group or task back, in words; that no weight is negative is not told."""
    is_second_order: bool | None = None
    """Whether the last decision was by second order."""
    guardrail_notes: tuple[str, ...] | None = None
    """What guarded text is expected to pay for what the tasks gain, where the last decision had guardrails."""
    asked: Mapping[str, ByDomain] | None = None
    """The mixture that each task would have got, had it alone decided; None where no task decides."""
    verdict: Verdict | None = None
    """How the run compares with keeping the prior, where that was trained too."""

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
    asked: AskedMixtures | None = None,
    verdict: Verdict | None = None,
) -> RunSummary:
    """Gather what the rounds of a run have recorded.

    `final` are the scores on all evaluation data, `decision` is the last round's, and `mixtures` are those of all
    rounds and the one to come.
    """
    is_used = decision.strategy != "prior"
    at_times: dict[str, Any] = {
        "guardrail_notes": (decision.guardrail_notes or None) if is_used else None,
        "asked": None if asked is None else asked.tasks,
        "verdict": verdict,
    }
    return RunSummary(
        mixtures=tuple(mixtures),
        bits_per_byte=tuple(map(_scores, evaluations)),
        final_bits_per_byte=_scores(final),
        choice=tuple(map(_choices, evaluations)),
        final_choice=_choices(final),
        response=decision.response,
        expected_gain=decision.expected_gain if is_used else {},
        gain_scale=decision.gain_scale,
        notes=decision.notes if is_used else (),
        held={holder(one): in_words(one) for one in told_constraints(decision.binding)} if is_used else {},
        is_second_order=decision.second_order is not None,
        **{name: value for name, value in at_times.items() if value is not None},
    )


def _scores(table: "pd.DataFrame") -> Scores:
    main = table[(table["kind"] == "domain") | (table["measure"] == "answer")]
    return {
        kind: dict(zip(rows["name"], rows["bits_per_byte"].tolist(), strict=True))
        for kind, rows in main.groupby("kind", sort=False)
    }


def _choices(table: "pd.DataFrame") -> dict[str, float]:
    rows = table[table["measure"] == "choice"]
    return dict(zip(rows["name"], rows["nats_per_item"].tolist(), strict=True))
