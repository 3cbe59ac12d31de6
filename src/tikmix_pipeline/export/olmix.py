"""Olmix: `ratios.csv`, one row per stage, and the `mix` of a launch file. Ratios count tokens.

A row of the table has every domain that any stage has, so zeros do occur there; rows sum to exactly 1.
Source: olmix/fit/loaders.py.
"""

import csv
import io

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.about import TOKENS, as_stated, exported, restart_notes
from tikmix_pipeline.export.capacity import capacity_notes, repetition_ratios
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import block, quoted
from tikmix_pipeline.export.weights import shares_of, text_of

_NO_DOMAINS = ("run", "run_id", "name", "index")
"""Columns that Olmix takes for something else than a domain."""
_NOTES = (
    "In olmix.ratios.csv a row is a stage, named run in its first column; metrics.csv beside it has to have its rows "
    "in the same order, since Olmix pairs them by position.",
    "The fit's configuration needs relative_sizes and token_counts of every domain column.",
)


def write_olmix(schedule: Schedule) -> Exported:
    """Return all stages as `olmix.ratios.csv`, and the last as `olmix.yaml`.

    Raises:
        TikmixError: a domain's name is no column of a domain to Olmix, or it has less text than its share asks for.
    """
    shares = shares_of(schedule.last.weights)
    ratios = repetition_ratios(schedule, shares, "Olmix")
    lines = ["mix:"]
    for name, share in shares.items():
        ratio = ratios[name]
        factor = "" if ratio is None else f", repetition_factor: {text_of(ratio)}"
        lines.append(f"  {quoted(name)}: {{weight: {text_of(share)}{factor}}}")
    realised = as_stated(schedule.last, shares)
    return exported(
        schedule,
        "olmix",
        {"olmix.ratios.csv": _ratios(schedule), "olmix.yaml": block(lines)},
        realised=realised,
        unit=TOKENS,
        switch="launch a new run with olmix.yaml from the checkpoint.",
        notes=(*_NOTES, *capacity_notes(schedule, ratios), *restart_notes(schedule, realised)),
    )


def _ratios(schedule: Schedule) -> str:
    rows = [shares_of(stage.weights) for stage in schedule.stages]
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
