"""The one schedule that every trainer's file is written from: mixtures over the steps of a run, in shares of tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.mixture.simplex import check_mixture


@dataclass(frozen=True)
class Phase:
    """A mixture and the optimiser steps and training tokens done before it. What users read calls it a stage.

    The weights are shares of the phase's tokens; they sum to 1, and a domain without one has 0.
    """

    start_step: int
    start_tokens: int
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Domain:
    """A domain as the trainer knows it."""

    name: str
    """What the weights call it."""
    path: str
    """Prefix, folder or glob of its data, as the trainer is to read it."""
    available_tokens: float | None
    """Training tokens it has; None where unknown."""
    mean_tokens_per_document: float | None
    """None where unknown; needed where weights count documents."""
    consumed_tokens: int = 0
    """Tokens read of it before the last phase, repetitions counted."""
    max_epochs: float | None = None
    """How often it may be read over the whole run; None sets no limit."""


@dataclass(frozen=True)
class Gain:
    """What a task is expected to gain, and the standard error of that, both in the schedule's `gain_unit`."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Schedule:
    """All mixtures of a run so far; the last is the one that was just decided.

    Raises:
        TikmixError: a value cannot be; the message names the domain, the phase or the attribute.
    """

    phases: Sequence[Phase]
    """In the order of their starts, the first at step 0."""
    domains: Sequence[Domain]
    """What the phases' weights name."""
    batch_tokens: int
    """Tokens of a global batch, a whole number of sequences."""
    context: int
    """Tokens of a sequence."""
    chunk_tokens: int
    """Tokens to be trained under the last phase."""
    experiment: str
    round: int
    """The round of the experiment that decided."""
    epochs: Mapping[str, float]
    """How often each domain will have been read when the chunk ends; domains may be missing."""
    expected_gain: Mapping[str, Gain]
    """By task."""
    gain_unit: str
    """Of `expected_gain`, and what the gain is over."""
    remaining_tokens: int | None = None
    """Tokens still to be trained, those of the last phase included; None where that is all that is known of."""

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_domains(self.domains)
        _check_starts(self.phases)
        names = [domain.name for domain in self.domains]
        for number, phase in enumerate(self.phases):
            check_mixture({**dict.fromkeys(names, 0.0), **phase.weights}, names, phase_name(number, phase))
        _check_outlook(self.epochs, self.expected_gain, names)

    @property
    def last(self) -> Phase:
        """The phase that was just decided."""
        return self.phases[-1]

    @property
    def end_tokens(self) -> int:
        """Training tokens of the run when the chunk ends."""
        return self.last.start_tokens + self.chunk_tokens

    @property
    def chunk_share(self) -> float:
        """The last phase's share of all tokens that are known to come: 1 where no more are."""
        return self.chunk_tokens / (self.remaining_tokens or self.chunk_tokens)

    @property
    def chunk_steps(self) -> int:
        """Optimiser steps of the chunk, the last one perhaps in part."""
        return -(-self.chunk_tokens // self.batch_tokens)

    @property
    def batch_sequences(self) -> int:
        """Sequences of a global batch."""
        return self.batch_tokens // self.context

    def domain(self, name: str) -> Domain:
        """Find a domain by its name."""
        return next(domain for domain in self.domains if domain.name == name)


def phase_name(number: int, phase: Phase) -> str:
    """Return what files and messages call a phase, counted from 0."""
    return f"stage {number} (from step {phase.start_step})"


def _check_sizes(schedule: Schedule) -> None:
    for name in ("batch_tokens", "context", "chunk_tokens"):
        if getattr(schedule, name) < 1:
            raise TikmixError(
                f"{name} of an export is {getattr(schedule, name)}; give a whole number of tokens from 1."
            )
    if schedule.remaining_tokens is not None and schedule.remaining_tokens < schedule.chunk_tokens:
        raise TikmixError(
            f"remaining_tokens of an export is {schedule.remaining_tokens}; give at least the {schedule.chunk_tokens} "
            "of the chunk, or none."
        )
    if schedule.batch_tokens % schedule.context:
        raise TikmixError(
            f"A batch of {schedule.batch_tokens} tokens is no whole number of sequences of {schedule.context}. "
            "Make batch_tokens a multiple of context."
        )
    _check_line("the experiment", schedule.experiment)
    _check_line("the unit of the expected gains", schedule.gain_unit)


def _check_domains(domains: Sequence[Domain]) -> None:
    if not domains:
        raise TikmixError("There are no domains to export. Give at least one, with the path of its data.")
    names: set[str] = set()
    owner_of: dict[str, str] = {}
    for domain in domains:
        _check_line("a domain", domain.name)
        _check_line(f"the path of the domain '{domain.name}'", domain.path)
        if domain.name in names:
            raise TikmixError(f"Two domains are named '{domain.name}'. Give each a name of its own.")
        if domain.path in owner_of:
            raise TikmixError(
                f"The domains '{owner_of[domain.path]}' and '{domain.name}' share the path '{domain.path}', so their "
                "weights would both go to the same text. Give each domain data of its own."
            )
        names.add(domain.name)
        owner_of[domain.path] = domain.name
        _check_counts(domain)


def _check_counts(domain: Domain) -> None:
    for field in ("available_tokens", "mean_tokens_per_document", "max_epochs"):
        value = getattr(domain, field)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise TikmixError(
                f"{field} of the domain '{domain.name}' is {value}; give a number above 0, or none if it is not known."
            )
    if domain.consumed_tokens < 0:
        raise TikmixError(
            f"consumed_tokens of the domain '{domain.name}' is {domain.consumed_tokens}; it is at least 0."
        )


def _check_starts(phases: Sequence[Phase]) -> None:
    if not phases:
        raise TikmixError("There is no mixture to export: the schedule has no stage. Give at least the one decided.")
    first = phases[0]
    if first.start_step != 0 or first.start_tokens != 0:
        raise TikmixError(
            f"{phase_name(0, first)} starts after {first.start_tokens} tokens; the first stage starts at step 0 with 0 "
            "tokens. Add the mixture that the run began with."
        )
    for number, (before, after) in enumerate(pairwise(phases), start=1):
        increases = {"step": after.start_step > before.start_step, "token": after.start_tokens > before.start_tokens}
        at_fault = " and ".join(part for part, increased in increases.items() if not increased)
        if at_fault:
            raise TikmixError(
                f"stage {number} starts at step {after.start_step} and token {after.start_tokens}, stage {number - 1} "
                f"at step {before.start_step} and token {before.start_tokens}: {at_fault} must increase. Put the "
                "stages in order, and leave out those shorter than a batch."
            )


def _check_outlook(epochs: Mapping[str, float], gains: Mapping[str, Gain], names: Sequence[str]) -> None:
    for name, value in epochs.items():
        if name not in names:
            raise TikmixError(f"epochs names the domain '{name}', which is not there.{nearest_name(name, names)}")
        if not (math.isfinite(value) and value >= 0):
            raise TikmixError(f"epochs of the domain '{name}' is {value}; it is a number from 0.")
    for task, gain in gains.items():
        _check_line("a task", task)
        stderr = 0.0 if gain.stderr is None else gain.stderr
        if not (math.isfinite(gain.value) and math.isfinite(stderr) and stderr >= 0):
            raise TikmixError(
                f"The expected gain of the task '{task}' is {gain.value} ± {gain.stderr}; give finite numbers, and "
                "none for an error that is not known."
            )


def _check_line(what: str, text: str) -> None:
    """Refuse what would break out of a comment or a quoted text."""
    if not text or not text.isprintable() or text != text.strip():
        raise TikmixError(
            f"The name of {what} is {text!r}. It goes into other programs' files: use printable characters, "
            "none of them a line break, and no blanks at either end."
        )
