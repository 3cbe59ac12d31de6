"""What the report of `remix` says, as plain values: `report.json`, which `page` lays out.

An unknown error is None, never a guess. `held_by`, `notes`, `constraints` and `switch` are sentences or phrases for
people, shown as they are.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from tikmix_pipeline.errors import TikmixError

ERRORS = 2.0
"""Standard errors that a figure must be away from zero to count as distinguishable: about 95 % for one figure alone."""


class Reading(StrEnum):
    """What an expected gain says."""

    GAINS = "gains"
    LOSES = "loses"
    UNCLEAR = "not distinguishable from zero"
    UNCHANGED = "unchanged"
    UNKNOWN = "not known"


@dataclass(frozen=True, kw_only=True)
class DomainRow:
    """One domain: its weights, and how much data it has."""

    name: str
    current: float
    """Its share of tokens in the current mixture, from 0 to 1."""
    recommended: float
    """Its share in the mixture of the coming chunk."""
    unconstrained: float | None
    """Its share in the mixture that would be chosen without constraints; None where nobody looked for that."""
    available_tokens: float
    """Tokens of one pass over its data."""
    consumed_tokens: float
    """Tokens of it that were trained on so far, repetitions counted."""
    chunk_tokens: float
    """Tokens of it in the coming chunk, as recommended."""
    epochs: float
    max_epochs: float
    """Passes over its data by the end of the coming chunk, and passes allowed."""
    held_by: str
    """The constraint that holds its weight, in words; empty where none does."""
    size_source: str
    """Where `available_tokens` is from: "given", "estimated from a sample" or "counted"."""
    final_epochs: float | None = None
    """Passes over its data by the end of the run, were the mixture kept; None where nobody says when that is."""

    @property
    def epochs_ahead(self) -> float:
        """Passes over its data by the end of all that is known to come."""
        return self.epochs if self.final_epochs is None else self.final_epochs


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One target task: what it is expected to gain, and how sure that is."""

    name: str
    gain: float
    """How much lower its loss is expected to end over the coming chunk, in the report's `gain_unit`, if that is trained
    on the recommended instead of the current mixture; to first order."""
    stderr: float | None
    """The standard error of `gain`, in the same unit; None where it was not measured."""
    unconstrained_gain: float | None
    """The gain of the mixture that would be chosen without constraints; None where nobody looked for that."""
    best_domains: tuple[str, ...]
    worst_domains: tuple[str, ...]
    """The domains that help it most, best first, and least, worst first."""
    rank_stability: float | None
    """Spearman correlation of the order of domains between halves of the measured text."""
    tokens: float
    """How many loss-carrying tokens of the task were measured."""
    held_by: str
    """The constraint that holds its gain, in words; empty where none does."""

    @property
    def error_known(self) -> bool:
        """Whether there is a standard error to go by."""
        return self.stderr is not None and math.isfinite(self.stderr)

    @property
    def within_error(self) -> bool:
        """Whether the gain lies less than `ERRORS` known standard errors from zero."""
        return within_error(self.gain, self.stderr)

    @property
    def reading(self) -> Reading:
        """What the gain says; one whose error is not known goes by its sign."""
        if not math.isfinite(self.gain):
            return Reading.UNKNOWN
        if self.within_error:
            return Reading.UNCLEAR
        if self.gain == 0:
            return Reading.UNCHANGED
        return Reading.GAINS if self.gain > 0 else Reading.LOSES


@dataclass(frozen=True)
class Cell:
    """The influence of one domain on one task, or its effect: positive where more of it lowers the task's loss.

    It and its standard error, None where that was not measured, are in any unit, the same for a whole task.
    """

    task: str
    domain: str
    influence: float
    stderr: float | None

    @property
    def within_error(self) -> bool:
        """Whether the influence lies less than `ERRORS` known standard errors from zero."""
        return within_error(self.influence, self.stderr)


@dataclass(frozen=True)
class ExportRow:
    """What one trainer is given: files relative to the report, and how to move a run to the new mixture."""

    trainer: str
    files: tuple[str, ...]
    switch: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What measuring and deciding cost, in tokens and FLOPs, and for comparison the FLOPs of training the chunk."""

    tokens: float
    flops: float
    chunk_flops: float


@dataclass(frozen=True, kw_only=True)
class RemixReport:
    """All that the report of one decision says; domains and tasks in the user's order."""

    experiment: str
    round: int
    """Number of the round that was measured."""
    checkpoint: str
    """Which checkpoint, as the user named it."""
    model: str
    """Its architecture or name."""
    parameters: int
    """How many the model has."""
    curvature: str
    """The approximation of the loss's curvature that influence was measured with, in words."""
    tokens_per_domain: float
    """Tokens of each domain that were measured."""
    chunk_tokens: int
    """Tokens of the coming chunk."""
    seed: int
    version: str
    """The version of this package."""
    domains: tuple[DomainRow, ...]
    tasks: tuple[TaskRow, ...]
    cells: tuple[Cell, ...]
    """Influence by task and domain; may be empty."""
    rank_stability: float | None
    """Mean over tasks of the tasks' own; None where it was not measured."""
    notes: tuple[str, ...]
    """Warnings and remarks of the measurement and the decision."""
    constraints: tuple[str, ...]
    """Every constraint that was set, in words."""
    unconstrained_differs: bool | None
    """Whether the constraints changed the mixture; None where nobody looked."""
    exports: tuple[ExportRow, ...]
    cost: Cost
    strategy: str
    """How the mixture was decided, in words."""
    remaining_tokens: int | None = None
    """Tokens of the rest of the run, the coming chunk included; None where nobody says."""
    gain_unit: Literal["share", "nats"] = "nats"
    is_second_order: bool = False
    """Whether gains are of second order (`optimize.method`)."""
    """Of the tasks' gains: shares of the best possible, 1 being what a task would gain if all of the coming chunk went
    to the domain that helps it most; or nats per token, where the user gives `influence.calibration`. Reports that do
    not say it are from when all gains were told in nats."""
    guardrail_notes: tuple[str, ...] = ()
    """What guarded text is expected to pay for what the tasks gain, in sentences; empty without guardrails."""
    effects: tuple[Cell, ...] = ()
    """This round's measurement as effects over the current mixture: positive where more of the domain helps."""
    deciding: tuple[Cell, ...] = ()
    """The same of what was decided on; empty where that is not known, as of TiKMiX-M."""
    decided_on: str = ""
    """What that is, and what beside it made the mixture, in sentences."""
    falling: tuple[str, ...] = ()
    """Which domains fall below a tenth of their weight, and what that is expected to cost, a sentence each."""
    without_path: tuple[str, ...] = ()
    """Domains that trainers' files call by their names, since `reweight.paths` does not have them."""

    VERSION: ClassVar[int] = 1

    def to_json(self) -> dict[str, Any]:
        """Return what `report.json` holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RemixReport":
        """Read what `to_json` gave. What is no report of this version raises TikmixError."""
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            raise TikmixError(f"This is no report as this version writes it ({error.errors()[0]['msg']}).") from error


def within_error(value: float, stderr: float | None) -> bool:
    """Say whether a figure lies less than `ERRORS` known standard errors from zero."""
    return stderr is not None and math.isfinite(stderr) and abs(value) < ERRORS * stderr
