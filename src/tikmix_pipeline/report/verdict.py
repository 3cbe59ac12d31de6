"""The verdict of a run: is what was decided better than keeping the prior, by how much, how surely, at what cost?

Both have the same start, text, learning rates and length, and are scored on the same items, so that their difference is
taken item by item (`statistics.mean_of_ratios`). Scores are bits per byte of whole items, as in `compare`. The interval
is over the items of the evaluation halves and windows of held-out text: what another seed of the training would have
given, one run cannot tell.

Axes: I items of a task, or windows of a domain's held-out text.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.record import Record
from tikmix_pipeline.report.number_format import brief_share
from tikmix_pipeline.statistics import Floats, mean_of_ratios

if TYPE_CHECKING:
    import pandas as pd

_ITEM = ["name", "kind", "measure", "item"]


class ScoreDifference(Record):
    """Bits per byte under what was decided and had the prior been kept; less is better."""

    decided: float
    kept: float
    difference: float
    """Of the decided from the kept."""
    low: float
    """Where the 95 % interval of the difference begins; like its end, nan where an item is alone."""
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    @property
    def sign(self) -> int:
        """-1 where the decided is surely lower, 1 where it is surely higher, 0 where the interval leaves it open."""
        return int(self.low > 0) - int(self.high < 0)


class Verdict(Record):
    """`verdict.json`."""

    tasks: Mapping[str, ScoreDifference]
    """Of whole items of the evaluation half, by task."""
    heldout: Mapping[str, ScoreDifference]
    """Of held-out text, by domain."""
    deciding: tuple[str, ...]
    """The tasks that decided; the others only judge."""
    mean_of_tasks: ScoreDifference | None = None
    """Of those that decided; None where none did."""
    mean_of_judges: ScoreDifference | None = None
    """Of those that did not."""
    mean_of_heldout: ScoreDifference
    training_flops: float
    """Of all rounds."""
    method_flops: float
    """What was spent besides to decide the mixtures that were trained under."""

    @property
    def extra_compute(self) -> float:
        """What deciding took, as a share of the training."""
        return self.method_flops / self.training_flops


def verdict_on(
    decided: "pd.DataFrame",
    kept: "pd.DataFrame",
    *,
    deciding: Sequence[str],
    training_flops: float,
    method_flops: float,
) -> Verdict:
    """Compare two models item by item.

    Args:
        decided: nats and bytes of every item (`final_items.parquet`) after training on what was decided.
        kept: the same after training on the prior.
        deciding: the tasks whose query halves decided.
        training_flops: of one of the two trainings.
        method_flops: of deciding.

    Raises:
        ValueError: the two were not scored on the same items.
    """
    pairs = _paired(decided, kept)
    texts = {
        kind: {str(name): _Text(rows) for name, rows in of_kind.groupby("name", sort=False)}
        for kind, of_kind in pairs[pairs["measure"] == "text"].groupby("kind", sort=False)
    }
    tasks = texts["task"]
    means: dict[str, list[_Text]] = {
        "mean_of_tasks": [text for name, text in tasks.items() if name in deciding],
        "mean_of_judges": [text for name, text in tasks.items() if name not in deciding],
    }
    of_some: dict[str, Any] = {name: _difference(of) for name, of in means.items() if of}
    return Verdict(
        tasks={name: _difference([text]) for name, text in tasks.items()},
        heldout={name: _difference([text]) for name, text in texts["domain"].items()},
        deciding=tuple(name for name in tasks if name in deciding),
        mean_of_heldout=_difference(texts["domain"].values()),
        training_flops=training_flops,
        method_flops=method_flops,
        **of_some,
    )


class _Text:
    """Bits and bytes of the items of a text."""

    def __init__(self, rows: "pd.DataFrame") -> None:
        bits = {name: rows[name].to_numpy(dtype=np.float64) / math.log(2) for name in ("nats", "nats_kept")}
        self.decided_I: Floats = bits["nats"]
        self.kept_I: Floats = bits["nats_kept"]
        self.bytes_I: Floats = rows["bytes"].to_numpy(dtype=np.float64)


def _paired(decided: "pd.DataFrame", kept: "pd.DataFrame") -> "pd.DataFrame":
    pairs = decided.merge(kept, on=_ITEM, how="left", suffixes=("", "_kept"), validate="one_to_one")
    if len(kept) != len(decided) or not np.array_equal(pairs["bytes"], pairs["bytes_kept"]):
        raise ValueError("the two models were not scored on the same items")
    return pairs


def _difference(texts: Iterable[_Text]) -> ScoreDifference:
    """Return the mean difference over texts."""
    found = list(texts)
    sizes = [text.bytes_I for text in found]
    decided = mean_of_ratios([text.decided_I for text in found], sizes).value
    kept = mean_of_ratios([text.kept_I for text in found], sizes).value
    change = mean_of_ratios([text.decided_I - text.kept_I for text in found], sizes)
    return ScoreDifference(decided=decided, kept=kept, difference=change.value, low=change.low, high=change.high)


def in_a_sentence(verdict: Verdict) -> str:
    """Say in one sentence whether deciding was better than keeping the prior, by how much, how surely, at what cost."""
    (subject, what, units), *others = _clauses(verdict)
    told = [
        f"{_word(subject)} keeping the prior: {_amount(subject, ' bits per byte')} on {what} (95 % interval "
        f"{_interval(subject)} over their {units}; of other seeds it tells nothing)",
        *(f"{_amount(other)} on {of} ({_interval(other)})" for other, of, _ in others),
    ]
    compute = f"{brief_share(verdict.extra_compute)} more" if verdict.method_flops else "no more"
    return f"{', '.join(told)}, for {compute} compute."


_SHOWN = 0.0005
"""Bits per byte that are more than 0.000 where three digits are shown."""

_Clause = tuple[ScoreDifference, str, str]
"""A mean, what it is of, and what its interval is over."""


def _clauses(verdict: Verdict) -> list[_Clause]:
    """Return the means, first the one that was decided by."""
    tasks: list[_Clause] = []
    judges: list[_Clause] = []
    heldout = [(verdict.mean_of_heldout, "held-out text of the domains", "windows")]
    if verdict.mean_of_tasks is not None:
        tasks.append((verdict.mean_of_tasks, _of_tasks(len(verdict.deciding)), "items"))
    if verdict.mean_of_judges is not None:
        count = len(verdict.tasks) - len(verdict.deciding)
        judges.append((verdict.mean_of_judges, _of_tasks(count, " that only judges", " that only judge"), "items"))
    return [*tasks, *judges, *heldout] if tasks else [*heldout, *judges]


def _of_tasks(count: int, one: str = "", many: str = "") -> str:
    return f"the task{one}" if count == 1 else f"the mean of {count} tasks{many}"


def _word(found: ScoreDifference) -> str:
    if not found.is_known:
        return "Undecided against"
    # what is shown as 0.000 is no difference to act on, however surely it is one
    sign = found.sign if abs(found.difference) >= _SHOWN else 0
    return {-1: "Better than", 0: "Level with", 1: "Worse than"}[sign]


def _amount(found: ScoreDifference, unit: str = "") -> str:
    return f"{abs(found.difference):.3f}{unit} {'higher' if found.difference > 0 else 'lower'}"


def _interval(found: ScoreDifference) -> str:
    if not found.is_known:
        return "not known"
    if found.sign or found.low == found.high:
        low, high = sorted((abs(found.low), abs(found.high)))
        return f"{low:.3f} to {high:.3f}"
    return f"{abs(found.low):.3f} lower to {found.high:.3f} higher"


def _signed_interval(found: ScoreDifference) -> str:
    return f"{found.low:+.3f} to {found.high:+.3f}" if found.is_known else "not known"


def verdict_rows(verdict: Verdict) -> list[list[str]]:
    """Return the rows of a table: the tasks, their means, and the mean of held-out text."""
    named = {
        **verdict.tasks,
        "mean of tasks": verdict.mean_of_tasks,
        "mean of those that only judge": verdict.mean_of_judges,
        "mean of held-out text": verdict.mean_of_heldout,
    }
    return [
        [name, f"{one.decided:.3f}", f"{one.kept:.3f}", f"{one.difference:+.3f}", _signed_interval(one)]
        for name, one in named.items()
        if one is not None
    ]
