"""What each file says about itself: where the mixture comes from, what its weights count, what to mind.

As a comment at the head of files that can carry one (YAML, Python); otherwise in `<trainer>.about.md` beside them.
"""

import textwrap
from collections.abc import Mapping, Sequence

from tikmix_pipeline.columns import aligned
from tikmix_pipeline.export.exported import Exported, Realised
from tikmix_pipeline.export.schedule import Schedule, Stage, stage_name
from tikmix_pipeline.export.syntax import block, comment
from tikmix_pipeline.export.weights import Shares, document_shares, floats, plain_decimal, text_of, token_shares

PACKED = "packed sequences of one length, so tokens"
TOKENS = "tokens"
DOCUMENTS = "documents"

_COMMENTED = (".yaml", ".yml", ".py")


def exported(
    schedule: Schedule,
    trainer: str,
    bodies: Mapping[str, str],
    *,
    realised: Realised,
    unit: str,
    switch: str,
    notes: Sequence[str] = (),
) -> Exported:
    """Return a trainer's files, each with what there is to know about it.

    Args:
        schedule: what was exported.
        trainer: its name, with which the file names begin.
        bodies: the files as the trainer reads them, by name.
        realised: the last stage as the trainer will follow it.
        unit: what the weights in the files count.
        switch: how to change over to the last stage in mid-run, in one line.
        notes: what a user of this trainer should know, in sentences.
    """
    all_notes = (*notes, *_notes_on(schedule, realised))
    about = _about(schedule, trainer, realised, unit, switch, all_notes)
    files = {name: comment(about) + "\n" + body if name.endswith(_COMMENTED) else body for name, body in bodies.items()}
    if not all(name.endswith(_COMMENTED) for name in bodies):
        files[f"{trainer}.about.md"] = _sidecar(trainer, [*bodies], about)
    return Exported(trainer, files, realised, unit, all_notes, switch)


def as_stated(stage: Stage, shares: Shares) -> Realised:
    """Return a stage that a trainer follows as its file states it, in shares of tokens."""
    return Realised(stage.start_step, stage.start_tokens, floats(shares), floats(shares))


def by_documents(schedule: Schedule, trainer: str) -> tuple[Shares, Realised]:
    """Return the last stage's shares of documents, and what a trainer that draws documents by them will follow.

    Raises:
        TikmixError: a domain's mean number of tokens per document is not known.
    """
    last = schedule.last
    documents = document_shares(schedule, last, trainer)
    per_token = token_shares(schedule, documents, trainer)
    return documents, Realised(last.start_step, last.start_tokens, floats(documents), per_token)


def restart_notes(schedule: Schedule, realised: Realised, unless: str = "") -> tuple[str, ...]:
    """Return a note on text that is read again, for trainers that start every domain over at a change of mixture.

    The figure counts each domain's tokens in the chunk as far as the run has read as many before; it is an upper limit
    where the trainer shuffles anew.

    Args:
        schedule: what is exported.
        realised: the last stage as the trainer will follow it.
        unless: what a user can do to keep domains from starting over, as a clause.
    """
    condition = f", unless {unless}" if unless else ""
    again = {
        name: min(schedule.domain(name).consumed_tokens, round(share * schedule.chunk_tokens))
        for name, share in realised.per_token.items()
    }
    if not any(again.values()):
        return ()
    parts = ", ".join(f"{name} {tokens}" for name, tokens in again.items() if tokens)
    return (
        f"Every domain starts over at this change{condition}: of the chunk's {schedule.chunk_tokens} tokens up to "
        f"{sum(again.values())} are read again ({parts}), even where a domain has text left that was not read. Give "
        "this stage files of its own where that matters.",
    )


def _notes_on(schedule: Schedule, realised: Realised) -> tuple[str, ...]:
    """Return notes that concern every trainer."""
    notes = []
    lost = [name for name, weight in schedule.last.weights.items() if weight > 0 and name not in realised.stated]
    if lost:
        notes.append(f"Too small to be written, and left out: {', '.join(sorted(lost))}.")
    for number, stage in enumerate(schedule.stages):
        if stage.start_tokens != stage.start_step * schedule.batch_tokens:
            notes.append(
                f"{stage_name(number, stage)} starts at token {stage.start_tokens}, which is not its step times the "
                f"{schedule.batch_tokens} tokens of a batch: check the start if the trainer's batch is of another size."
            )
    return tuple(notes)


def _about(
    schedule: Schedule, trainer: str, realised: Realised, unit: str, switch: str, notes: Sequence[str]
) -> list[str]:
    return [
        f"Mixture for {trainer}, decided by TiKMiX Pipeline.",
        *_wrapped(f"Experiment {schedule.experiment}, round {schedule.round}."),
        f"In force from step {realised.start_step} (token {realised.start_tokens}) for {schedule.chunk_tokens} tokens: "
        f"{schedule.chunk_steps} steps of {schedule.batch_tokens}.",
        f"Unit of the weights: {unit}.",
        "",
        *_domain_table(schedule, realised),
        *_gain_lines(schedule),
        *_dropped_lines(schedule, realised),
        "",
        *_wrapped(f"To switch: {switch}"),
        *(line for note in notes for line in _wrapped(f"Note: {note}")),
    ]


def _domain_table(schedule: Schedule, realised: Realised) -> list[str]:
    rows = [("domain", "weight in the file", "share of tokens", "epochs at the end of the chunk")]
    for name, weight in realised.stated.items():
        epochs = f"{schedule.epochs[name]:.4g}" if name in schedule.epochs else "not known"
        rows.append((name, _plain(weight), _plain(realised.per_token[name]), epochs))
    return aligned(rows)


def _plain(weight: float) -> str:
    return text_of(plain_decimal(weight))


def _gain_lines(schedule: Schedule) -> list[str]:
    if not schedule.expected_gain:
        return []
    rows = [("task", f"expected gain ({schedule.gain_unit})", "standard error")]
    for task, gain in sorted(schedule.expected_gain.items()):
        rows.append((task, f"{gain.value:+.4g}", "not known" if gain.stderr is None else f"{gain.stderr:.2g}"))
    return ["", *aligned(rows)]


def _dropped_lines(schedule: Schedule, realised: Realised) -> list[str]:
    dropped = sorted({domain.name for domain in schedule.domains} - set(realised.stated))
    return ["", *_wrapped(f"Left out, without weight in this stage: {', '.join(dropped)}.")] if dropped else []


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _sidecar(trainer: str, names: Sequence[str], about: Sequence[str]) -> str:
    files = ", ".join(f"`{name}`" for name in names)
    return block([f"# {trainer}: {files}", "", *(f"    {line}".rstrip() for line in about)])
