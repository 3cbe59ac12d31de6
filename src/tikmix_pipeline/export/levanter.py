"""Levanter: `train_weights` as a list of (step, weights), one configuration for the whole run.

Weights count sequences. Domains keep their place across a change, so nothing is read again. Stages start at whole
blocks and blocks hold whole sequences (`blocks`). Source: levanter/data/text.py, data/mixture.py, PR #868.
"""

from decimal import Decimal

from tikmix_pipeline.export.about import PACKED, exported
from tikmix_pipeline.export.blocks import BlockGrid, block_counts, block_grid, levanter_counts, weights_for
from tikmix_pipeline.export.exported import Exported, Realised
from tikmix_pipeline.export.schedule import Schedule, stage_name
from tikmix_pipeline.export.syntax import block, flow_list, quoted
from tikmix_pipeline.export.weights import Shares, floats, shares_of, text_of

_SWITCH = (
    "stop the run, and resume it with this file, by the step where the new stage starts: train_weights names all "
    "stages, and each domain goes on where it was."
)


def write_levanter(schedule: Schedule) -> Exported:
    """Return all stages as `levanter.yaml`.

    Raises:
        TikmixError: a block has fewer sequences than there are domains.
    """
    steps = [stage.start_step for stage in schedule.stages]
    grid = block_grid(steps, steps[-1] + schedule.chunk_steps, schedule.batch_sequences)
    wanted = [shares_of(stage.weights) for stage in schedule.stages]
    written = [weights_for(block_counts(shares, grid.block), grid.block) for shares in wanted]
    counts = levanter_counts(written[-1], grid.block)
    realised = Realised(
        grid.start_steps[-1],
        schedule.last.start_tokens + (grid.start_steps[-1] - steps[-1]) * schedule.batch_tokens,
        floats(written[-1]),
        {name: count / grid.block for name, count in counts.items()},
    )
    return exported(
        schedule,
        "levanter",
        {"levanter.yaml": _yaml(schedule, grid, written)},
        realised=realised,
        unit=PACKED,
        switch=_SWITCH,
        notes=(
            *_shift_notes(schedule, grid),
            *_changed_notes(grid),
            *_rounding_notes(wanted[-1], realised, grid.block),
        ),
    )


def _yaml(schedule: Schedule, grid: BlockGrid, written: list[dict[str, Decimal]]) -> str:
    names = sorted({name for shares in written for name in shares})
    paths = {name: schedule.domain(name).path for name in names}
    lines = ["data:", "  configs:"]
    lines += [f"    {quoted(name)}: {{train_urls: {flow_list([quoted(path)])}}}" for name, path in paths.items()]
    lines += [f"  mixture_block_size: {grid.block}", "  train_weights:"]
    for step, shares in zip(grid.start_steps, written, strict=True):
        weights = ", ".join(f"{quoted(name)}: {text_of(share)}" for name, share in shares.items())
        lines.append(f"    - [{step}, {{{weights}}}]")
    return block(lines)


def _shift_notes(schedule: Schedule, grid: BlockGrid) -> tuple[str, ...]:
    return tuple(
        f"{stage_name(number, stage)} starts at step {step} instead, where a block of {grid.block} sequences begins "
        f"({(step - stage.start_step) * schedule.batch_tokens:+d} tokens)."
        for number, (stage, step) in enumerate(zip(schedule.stages, grid.start_steps, strict=True))
        if step != stage.start_step
    )


def _changed_notes(grid: BlockGrid) -> tuple[str, ...]:
    if grid.block_before in (None, grid.block):
        return ()
    return (
        f"mixture_block_size was {grid.block_before} before this stage, which its start or length does not allow: at "
        "the change some sequences are skipped or read again. Stages of equally many steps keep it.",
    )


def _rounding_notes(wanted: Shares, realised: Realised, size: int) -> tuple[str, ...]:
    per_token = realised.per_token
    raised = [name for name, share in wanted.items() if share * size < 1 and per_token[name] > 0]
    off = {name: abs(per_token[name] - float(share)) for name, share in wanted.items()}
    worst = max(off, key=lambda name: off[name])
    notes = [
        f"Each block of {size} sequences holds whole sequences of every domain, which moves the weight of '{worst}' "
        f"most, by {off[worst]:.6f}."
    ]
    if raised:
        notes.append(f"Raised to one sequence per block, below which a domain gets none: {', '.join(raised)}.")
    return tuple(notes)
