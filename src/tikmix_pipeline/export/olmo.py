"""OLMo-core and Olmix. Ratios count tokens, and sum to 1.

`olmo_core`  a `SourceMixtureList` in YAML, for one run per phase
`olmix`      `ratios.csv`, one row per phase, and the `mix` of a launch file. A row has every domain that any phase has,
             so zeros do occur there

Both cut a data set of its own for each phase, so a domain has to have the text that a mixture asks for:

    asked_j  = T w_j
    may_j    = (max_epochs_j − consumed_j / N_j) N_j T / R
    ratio_j  = max(1, may_j / N_j), rounded up;                       asked_j <= N_j ratio_j

T is the phase's tokens and R all that are known to come, so that a phase leaves to later ones what they would take
under the same mixture. Without a limit on a domain's epochs, the ratio is what the phase needs.

OLMo-core rounds what is requested up to whole batches, and deals what that adds to all files alike, whatever their
share: a domain of 1 in 10,000 may get a third of a batch. So whole batches are requested. A file gives whole sequences
in each pass, and its rest to none; where all text together makes fewer sequences than are requested, the last batches
are of a second epoch of everything.
Sources: olmo_core/data/source_mixture.py (`SourceMixtureDatasetConfig.build`), data/data_loader.py (`total_size`),
src/scripts/train/OLMo3; olmix/fit/loaders.py.
"""

import csv
import io
import math
from decimal import Decimal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.exported import TOKENS, Written
from tikmix_pipeline.export.schedule import Domain, Schedule
from tikmix_pipeline.export.syntax import Inline, Quoted, Shares, shares_of, text_of, yaml_text

_NO_DOMAINS = ("run", "run_id", "name", "index")
"""Columns that Olmix takes for something else than a domain."""
_SLACK = 1e-6
"""By how much a weight at its limit may exceed it, relatively and as a share: it is rounded when it is recorded."""
_DECIMALS = 6


def write_olmo_core(schedule: Schedule) -> Written:
    """Return the last phase as `olmo_core.yaml`. Less text than a ratio asks for raises TikmixError."""
    shares = shares_of(schedule.last.weights)
    ratios = repetition_ratios(schedule, shares, "OLMo-core")
    sources = [
        {
            "source_name": Quoted(name),
            "target_ratio": share,
            **_if_known("max_repetition_ratio", ratios[name]),
            "paths": (Quoted(schedule.domain(name).path),),
        }
        for name, share in shares.items()
    ]
    return Written(
        {"olmo_core.yaml": yaml_text({"sources": sources})},
        unit=TOKENS,
        switch=(
            "start a new run that loads the checkpoint with load_trainer_state=False and load_optim_state=True and "
            "reads this file (keeping the loader's state instead needs ignore_fingerprint_mismatch)."
        ),
        notes=(
            "Build it with SourceMixtureDatasetConfig(source_list=SourceMixtureList.from_yaml(...), requested_tokens="
            f"{requested_tokens(schedule)}, global_batch_size={schedule.batch_tokens}) and sequence_length="
            f"{schedule.context}.",
            *_capacity_notes(schedule, ratios),
            *_rounding_notes(schedule, shares),
        ),
    )


def write_olmix(schedule: Schedule) -> Written:
    """Return all phases as `olmix.ratios.csv`, and the last as `olmix.yaml`.

    Raises:
        TikmixError: a domain's name is no column of a domain to Olmix, or it has less text than its share asks for.
    """
    shares = shares_of(schedule.last.weights)
    ratios = repetition_ratios(schedule, shares, "Olmix")
    mix = {
        Quoted(name): Inline(weight=share, **_if_known("repetition_factor", ratios[name]))
        for name, share in shares.items()
    }
    return Written(
        {"olmix.ratios.csv": _ratios_table(schedule), "olmix.yaml": yaml_text({"mix": mix})},
        unit=TOKENS,
        switch="launch a new run with olmix.yaml from the checkpoint.",
        notes=(
            "In olmix.ratios.csv a row is a stage, named run in its first column; metrics.csv beside it has to have "
            "its rows in the same order, since Olmix pairs them by position.",
            "The fit's configuration needs relative_sizes and token_counts of every domain column.",
            *_capacity_notes(schedule, ratios),
        ),
    )


def _if_known(key: str, ratio: Decimal | None) -> dict[str, Decimal]:
    return {} if ratio is None else {key: ratio}


def _ratios_table(schedule: Schedule) -> str:
    rows = [shares_of(phase.weights) for phase in schedule.phases]
    names = sorted({name for row in rows for name in row})
    for name in names:
        if name in _NO_DOMAINS or name.startswith("Unnamed"):
            raise TikmixError(f"Olmix does not take the column '{name}' for a domain. Give that domain another name.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *names])
    for number, row in enumerate(rows):
        cells = [text_of(row[name]) if name in row else "0.0" for name in names]
        writer.writerow([f"{schedule.experiment}-stage-{number}", *cells])
    return text.getvalue()


def repetition_ratios(schedule: Schedule, shares: Shares, trainer: str) -> dict[str, Decimal | None]:
    """Return how often each domain's text may be repeated within the chunk, at least 1; None where its size is unknown.

    Raises:
        TikmixError: a domain has less text than the chunk asks for.
    """
    return {name: _ratio(schedule, schedule.domain(name), float(share), trainer) for name, share in shares.items()}


def _capacity_notes(schedule: Schedule, ratios: dict[str, Decimal | None]) -> tuple[str, ...]:
    """Return notes on what could not be checked, and on domains that are repeated without a limit being set."""
    unknown = [name for name, ratio in ratios.items() if ratio is None]
    repeated = [
        f"{name} {ratio}"
        for name, ratio in ratios.items()
        if ratio is not None and ratio > 1 and schedule.domain(name).max_epochs is None
    ]
    notes = []
    if unknown:
        notes.append(f"Not checked for enough text, since their size is not known: {', '.join(unknown)}.")
    if repeated:
        notes.append(f"Repeated within the chunk, as no limit on epochs is set: {', '.join(repeated)} times.")
    return tuple(notes)


def requested_tokens(schedule: Schedule) -> int:
    """Return the chunk's tokens as whole batches, at least one."""
    return max(1, schedule.chunk_tokens // schedule.batch_tokens) * schedule.batch_tokens


def _rounding_notes(schedule: Schedule, shares: Shares) -> tuple[str, ...]:
    """Return notes on text that rounding has OLMo-core read once more: of a domain at its limit, or all of it."""
    requested, context = requested_tokens(schedule), schedule.context
    notes = []
    if requested != schedule.chunk_tokens:
        notes.append(
            f"Of the chunk's {schedule.chunk_tokens} tokens {requested} are whole batches. A request that is not one "
            "of whole batches is rounded up, and what that adds goes to all files alike, whatever their share."
        )
    beyond = {name: _tokens_beyond(schedule, schedule.domain(name), float(share)) for name, share in shares.items()}
    if any(beyond.values()):
        parts = ", ".join(f"{name} {tokens}" for name, tokens in beyond.items() if tokens)
        notes.append(f"Rounding takes domains at their max_epochs into one epoch more, by so many tokens: {parts}.")
    sequences = [_sequences(schedule, schedule.domain(name), float(share)) for name, share in shares.items()]
    have = sum(number for number in sequences if number is not None)
    if None not in sequences and have * context < requested:
        notes.append(
            f"All text makes {have} whole sequences, and {requested // context} are requested: the last steps would be "
            "of a second epoch of every domain. Give requested_tokens="
            f"{have // schedule.batch_sequences * schedule.batch_tokens}, and train for as many."
        )
    return tuple(notes)


def _tokens_beyond(schedule: Schedule, domain: Domain, share: float) -> int:
    """Return how many tokens are asked of a domain that its limit does not leave; a few, by rounding."""
    if domain.available_tokens is None or domain.max_epochs is None:
        return 0
    left = max(0.0, domain.max_epochs * domain.available_tokens - domain.consumed_tokens) * schedule.chunk_share
    return max(0, int(share * requested_tokens(schedule)) - math.ceil(left))


def _sequences(schedule: Schedule, domain: Domain, share: float) -> int | None:
    """Return how many sequences OLMo-core can cut of a domain in one file, in as many passes as it makes."""
    if domain.available_tokens is None:
        return None
    passes = max(1, math.ceil(int(share * requested_tokens(schedule)) / domain.available_tokens))
    return passes * int(domain.available_tokens // schedule.context)


def _ratio(schedule: Schedule, domain: Domain, share: float, trainer: str) -> Decimal | None:
    if domain.available_tokens is None:
        return None
    asked, part = share * schedule.chunk_tokens, schedule.chunk_share
    needed = asked / domain.available_tokens
    if domain.max_epochs is None:
        return _rounded_up(needed)
    left = max(0.0, domain.max_epochs - domain.consumed_tokens / domain.available_tokens) * part
    if needed > left * (1 + _SLACK) + _SLACK * schedule.chunk_tokens / domain.available_tokens:
        of_what = f", the chunk being {part:.3g} of what is to come" if part < 1 else ""
        raise TikmixError(
            f"{trainer} cannot fill the share of the domain '{domain.name}': the chunk asks for {asked:.0f} tokens "
            f"of it and max_epochs = {domain.max_epochs:g} leaves {left * domain.available_tokens:.0f} of its "
            f"{domain.available_tokens:.0f}{of_what}. Lower its weight, shorten the chunk, or raise max_epochs."
        )
    return _rounded_up(max(left, needed))


def _rounded_up(ratio: float) -> Decimal:
    units = 10**_DECIMALS
    return Decimal(math.ceil(max(1.0, ratio) * units)) / Decimal(units)
