"""Megatron-LM: `--data-args-path`, `--per-split-data-args-path`, and one blend per phase.

The list is read by splitting at white space, so it has no comments. Weights count samples of a fixed length.
Source: megatron/core/datasets/utils.py (`get_blend_from_list`), training/utils/common_utils.py, PR #2938 (phases).
"""

import json

from tikmix_pipeline.export.about import PACKED, as_stated, exported, restart_notes
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.limits import check_count, check_no_blanks, check_prefixes
from tikmix_pipeline.export.schedule import Schedule, Stage
from tikmix_pipeline.export.syntax import block
from tikmix_pipeline.export.weights import shares_of, text_of

MOST_DATASETS = 32766


def write_megatron(schedule: Schedule) -> Exported:
    """Return the last stage's blend as `megatron.txt` and `megatron.json`, and each stage's as a phase.

    Raises:
        TikmixError: a path that a blend cannot hold, or too many domains.
    """
    phases = [blend(schedule, stage, "Megatron-LM") for stage in schedule.stages]
    tokens = phases[-1]
    files = {"megatron.txt": _pairs(tokens), "megatron.json": _per_split(tokens)}
    if len(phases) > 1:
        files |= {f"megatron.phase_{number}.txt": _pairs(phase) for number, phase in enumerate(phases)}
        files["megatron.phases.txt"] = ",".join(str(stage.start_step) for stage in schedule.stages[1:]) + "\n"
    realised = as_stated(schedule.last, shares_of(schedule.last.weights))
    return exported(
        schedule,
        "megatron",
        files,
        realised=realised,
        unit=PACKED,
        switch=_switch(schedule),
        notes=(*_notes(schedule), *restart_notes(schedule, realised)),
    )


def blend(schedule: Schedule, stage: Stage, trainer: str, most: int = MOST_DATASETS) -> list[str]:
    """Return weights and prefixes in turn.

    Raises:
        TikmixError: a path that a blend cannot hold, or more than `most` domains.
    """
    shares = shares_of(stage.weights)
    check_no_blanks(schedule, shares, trainer)
    check_prefixes(schedule, shares, trainer)
    check_count(len(shares), most, trainer)
    return [token for name, share in shares.items() for token in (text_of(share), schedule.domain(name).path)]


def _pairs(tokens: list[str]) -> str:
    return block(" ".join(tokens[start : start + 2]) for start in range(0, len(tokens), 2))


def _per_split(tokens: list[str]) -> str:
    return json.dumps(dict.fromkeys(("train", "valid", "test"), tokens), indent=2, ensure_ascii=False) + "\n"


def _switch(schedule: Schedule) -> str:
    if len(schedule.stages) == 1:
        return "launch with --data-args-path megatron.txt; there is no earlier mixture to switch from."
    number = len(schedule.stages) - 1
    return (
        "give every launch --phase-transition-iterations with the list in megatron.phases.txt; the run saves and exits "
        f"at iteration {schedule.last.start_step}, then relaunch it with --data-args-path megatron.phase_{number}.txt."
    )


def _notes(schedule: Schedule) -> tuple[str, ...]:
    samples = (schedule.last.start_step + schedule.chunk_steps) * schedule.batch_sequences
    return (
        "megatron.json states the same blend for train, valid and test, so it validates on training text: replace "
        "valid and test by prefixes that were held out. megatron.txt with --split sets documents aside instead.",
        f"With phases give --train-samples {samples} instead of --train-iters, since the bound of the last phase is "
        "read from it, and keep the global batch size.",
    )
