"""What a run has to say at its end, whatever it was."""

from collections.abc import Callable, Collection
from typing import Any

from tikmix_pipeline.report.terminal_tables import (
    comparison_text,
    remix_text,
    summary_table,
    sweep_table,
    validation_table,
)
from tikmix_pipeline.session.tracking.names import split_name


def final_table(outputs: Collection[str], load: Callable[[str], Any], experiment: str) -> str | None:
    """Return the table that a whole run, a comparison, a validation or a sweep ends with, if it ends with one.

    Args:
        outputs: names of the datasets that the run was to make.
        load: loads one of them.
        experiment: names the folders.
    """
    if "comparison_table" in outputs:
        return comparison_text(load("comparison_table"), experiment)
    if "summary" in outputs:
        return summary_table(load("summary"), experiment)
    reports = sorted(name for name in outputs if split_name(name)[1] == "report_content")
    if reports:
        return remix_text(load(reports[-1]))
    for name in sorted(outputs, reverse=True):
        number, kind = split_name(name)
        if kind == "validation":
            return validation_table(load(name).to_dict("records"), experiment)
        if kind == "sweep_decision":
            quality = f"round_{number}_sweep_quality"
            if quality in outputs:
                return sweep_table(load(name), load(quality).to_dict("records"), experiment)
    return None
