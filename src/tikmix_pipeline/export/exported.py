"""What a writer returns: a trainer's files, and what they say about themselves.

Where the mixture comes from, what its weights count and what to mind stand as a comment at the head of files that can
carry one (YAML, Python), and otherwise in `<trainer>.about.md` beside them.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tikmix_pipeline.columns import aligned
from tikmix_pipeline.export.schedule import Schedule, phase_name
from tikmix_pipeline.export.syntax import block, comment, floats, plain_decimal, shares_of, text_of

PACKED = "packed sequences of one length, so tokens"
TOKENS = "tokens"
DOCUMENTS = "documents"

_COMMENTED = (".yaml", ".yml", ".py")


@dataclass(frozen=True)
class Realised:
    """The last phase as the trainer will follow it, after rounding to its grid."""

    start_step: int
    """Optimiser steps done before it."""
    start_tokens: int
    """Training tokens read before it."""
    stated: Mapping[str, float]
    """Weights as the file states them, in the trainer's unit; only domains with weight."""
    per_token: Mapping[str, float]
    """The shares of tokens that they amount to."""


@dataclass(frozen=True)
class Written:
    """What a writer returns, and what `headed` makes of it."""

    files: Mapping[str, str]
    """Text by file name, as the trainer reads it; names begin with the trainer's."""
    unit: str
    """What the weights in the files count."""
    switch: str
    """How to change over to the last phase in mid-run, in one line."""
    notes: Sequence[str] = ()
    """What a user of this trainer should know, in sentences."""
    realised: Realised | None = None
    """The last phase as the trainer will follow it; where a writer says nothing, as written, in shares of tokens."""
    restarts: bool = True
    """The trainer starts every domain over at a change of mixture, so that text may be read again."""
    unless: str = ""
    """What a user can do to keep domains from starting over, as a clause."""
    trainer: str = ""
    """Its name in `TRAINERS`; `headed` knows it."""


def headed(trainer: str, schedule: Schedule, written: Written) -> Written:
    """Return what was written for a trainer, with notes on the schedule and a text about itself at each file's head."""
    last, realised, files = schedule.last, written.realised, written.files
    if realised is None:
        stated = floats(shares_of(last.weights))
        realised = Realised(last.start_step, last.start_tokens, stated, stated)
    again = _restart_notes(schedule, realised, written.unless) if written.restarts else ()
    notes = (*written.notes, *again, *_notes_on(schedule, realised))
    made = replace(written, trainer=trainer, realised=realised, notes=notes)
    about = _about(schedule, made, realised)
    told = {name: comment(about) + "\n" + text if name.endswith(_COMMENTED) else text for name, text in files.items()}
    if not all(name.endswith(_COMMENTED) for name in files):
        names = ", ".join(f"`{name}`" for name in files)
        told[f"{trainer}.about.md"] = block([f"# {trainer}: {names}", "", *(f"    {line}".rstrip() for line in about)])
    return replace(made, files=told)


def _restart_notes(schedule: Schedule, realised: Realised, unless: str) -> tuple[str, ...]:
    """Return a note on text that is read again.

    The figure counts each domain's tokens in the chunk as far as the run has read as many before; it is an upper limit
    where the trainer shuffles anew.
    """
    condition = f", unless {unless}" if unless else ""
    again = {
        name: min(schedule.domain(name).consumed_tokens, round(share * schedule.chunk_tokens))
        for name, share in realised.per_token.items()
    }
    if not any(again.values()):
        return ()
    parts = "; ".join(f"{name} {tokens:,}" for name, tokens in again.items() if tokens)
    return (
        f"Every domain starts over at this change{condition}: of the chunk's {schedule.chunk_tokens:,} tokens up to "
        f"{sum(again.values()):,} are read again ({parts}), even where a domain has text left that was not read. Give "
        "this stage files of its own where that matters.",
    )


def _notes_on(schedule: Schedule, realised: Realised) -> tuple[str, ...]:
    notes = []
    lost = [name for name, weight in schedule.last.weights.items() if weight > 0 and name not in realised.stated]
    if lost:
        notes.append(f"Too small to be written, and left out: {', '.join(sorted(lost))}.")
    for number, phase in enumerate(schedule.phases):
        if phase.start_tokens != phase.start_step * schedule.batch_tokens:
            notes.append(
                f"{phase_name(number, phase)} starts at token {phase.start_tokens:,}, which is not its step times the "
                f"{schedule.batch_tokens:,} tokens of a batch: check the start if the trainer's batch is of another "
                "size."
            )
    return tuple(notes)


def _about(schedule: Schedule, made: Written, realised: Realised) -> list[str]:
    """Return the lines that stand at the head of a trainer's files, or beside them."""
    stated, per_token = realised.stated, realised.per_token
    domains = [("domain", "weight in the file", "share of tokens", "epochs at the end of the chunk")]
    for name, weight in stated.items():
        epochs = f"{schedule.epochs[name]:.4g}" if name in schedule.epochs else "not known"
        shown = [text_of(plain_decimal(value)) for value in (weight, per_token[name])]
        domains.append((name, shown[0], shown[1], epochs))
    gains = [("task", f"expected gain ({schedule.gain_unit})", "standard error")]
    for task, gain in sorted(schedule.expected_gain.items()):
        gains.append((task, f"{gain.value:+.4g}", "not known" if gain.stderr is None else f"{gain.stderr:.2g}"))
    dropped = sorted({domain.name for domain in schedule.domains} - set(stated))
    return [
        f"Mixture for {made.trainer}, decided by TiKMiX Pipeline.",
        *_wrapped(f"Experiment {schedule.experiment}, round {schedule.round}."),
        f"In force from step {realised.start_step} (token {realised.start_tokens:,}) for "
        f"{schedule.chunk_tokens:,} tokens: {schedule.chunk_steps:,} steps of {schedule.batch_tokens:,}.",
        f"Unit of the weights: {made.unit}.",
        "",
        *aligned(domains),
        *(["", *aligned(gains)] if schedule.expected_gain else []),
        *(["", *_wrapped(f"Left out, without weight in this stage: {', '.join(dropped)}.")] if dropped else []),
        "",
        *_wrapped(f"To switch: {made.switch}"),
        *(line for note in made.notes for line in _wrapped(f"Note: {note}")),
    ]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
