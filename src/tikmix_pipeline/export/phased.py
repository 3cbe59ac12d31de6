"""Trainers whose one file has all phases of the run: nanotron, llm-foundry and Levanter.

`nanotron`     `data_stages` with lists of folders and weights, which count sequences. The last stage of the file is the
               one that is trained; folders keep count of what was read. Lists only: the mapping of folders to weights
               in nanotron's documents is refused by its reader.
`llm_foundry`  streams with proportions, and the callback `curriculum_learning` for the phases after the first; the
               durations of all add up to max_duration. Proportions count samples of `max_seq_len` tokens, which
               batches take at random from all streams: they hold on average. `batching_method: stratified` would round
               them to whole samples of a batch, and raises ValueError for a stream that gets none.
`levanter`     `train_weights` as a list of (step, weights), which count sequences. Domains keep their place across a
               change, so nothing is read again.

Levanter's phases start at whole blocks, and a block holds whole sequences of each domain:

    block        N sequences; divides every start in sequences, at most 65,535
    counts       by domain, summing to N; a domain with weight has at least one

It normalises the weights, truncates w_j N, and gives what is left to the domain with the most. So a weight below 1 / N
gets nothing there, and truncation alone would take up to a sequence per block from every domain but one: the counts are
decided here by largest remainder, and the weights written such that the truncation comes out at them.

Sources: src/nanotron/config/config.py, run_train.py, data/nanoset.py; llmfoundry/data/text_data.py,
callbacks/curriculum_learning_callback.py, streaming/base/stream.py, batching; levanter/data/mixture.py
(`_compute_expected_counts_per_block`), data/text.py, PR #868.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.exported import PACKED, Realised, Written
from tikmix_pipeline.export.schedule import Phase, Schedule, phase_name
from tikmix_pipeline.export.syntax import DECIMALS, Inline, Quoted, Shares, floats, shares_of, yaml_text

LARGEST_BLOCK = 65535
_ENOUGH = 256
"""Starts are moved only where they would not allow blocks of so many sequences, or half the largest there are."""


def write_nanotron(schedule: Schedule) -> Written:
    """Return all phases as `nanotron.yaml`, to go into a configuration in place of its `data_stages`."""
    stages = []
    for number, phase in enumerate(schedule.phases, start=1):
        shares = shares_of(phase.weights)
        dataset = {
            "dataset_folder": tuple(Quoted(schedule.domain(name).path) for name in shares),
            "dataset_weights": tuple(shares.values()),
        }
        data = {"seed": 42, "num_loading_workers": 1, "dataset": dataset}
        stages.append({"name": f"stage {number}", "start_training_step": phase.start_step + 1, "data": data})
    done = schedule.last.start_step
    switch = (
        f"stop at exactly {done} done steps and resume with this file, whose last stage is then trained; another step "
        "raises ValueError."
        if done
        else "launch with this file; there is no earlier mixture to switch from."
    )
    return Written(
        {"nanotron.yaml": yaml_text({"data_stages": stages}, indent_lists=False)},
        unit=PACKED,
        switch=switch,
        notes=(
            f"Stages have one sequence length; tokens.sequence_length is {schedule.context} here. Steps in "
            "start_training_step count from 1.",
        ),
        restarts=False,
    )


def write_llm_foundry(schedule: Schedule) -> Written:
    """Return all phases as `llm_foundry.yaml`, keys of a training configuration."""
    first, *later = schedule.phases
    ends = [*(phase.start_tokens for phase in later), schedule.end_tokens]
    durations = [f"{end - phase.start_tokens}tok" for phase, end in zip(schedule.phases, ends, strict=True)]
    dataset = {"streams": _streams(schedule, first), "shuffle": True, "max_seq_len": schedule.context}
    config: dict[str, Any] = {
        "max_duration": f"{schedule.end_tokens}tok",
        "train_loader": {"name": "text", "dataset": dataset},
    }
    switch = "train with this file; the callback curriculum_learning comes with the second mixture."
    if later:
        entries = [
            {"duration": duration, "dataset": {"streams": _streams(schedule, phase)}}
            for phase, duration in zip(later, durations[1:], strict=True)
        ]
        config["callbacks"] = {"curriculum_learning": {"duration": durations[0], "schedule": entries}}
        switch = (
            "resume with this file: max_duration grows with each stage and finished stages have to be as they were; "
            f"the callback changes over by itself at token {schedule.last.start_tokens:,}."
        )
    reason = "    shuffle: true  # without it streams come one after the other\n"
    text = yaml_text(config, indent_lists=False).replace("    shuffle: true\n", reason, 1)
    return Written(
        {"llm_foundry.yaml": text},
        unit=PACKED,
        switch=switch,
        notes=(
            "Each path is the folder that holds a stream's index.json; data in folders by split need `split` beside "
            "`local`.",
            "Proportions hold on average, not in each batch. Leave batching_method at its default, random: stratified "
            "rounds them to whole samples of a batch, and refuses a stream that gets none.",
        ),
    )


def _streams(schedule: Schedule, phase: Phase) -> dict[Quoted, Inline]:
    return {
        Quoted(name): Inline(local=Quoted(schedule.domain(name).path), proportion=share)
        for name, share in shares_of(phase.weights).items()
    }


@dataclass(frozen=True)
class BlockGrid:
    """Blocks, and the phases' starts on them."""

    block: int
    """Sequences of a block."""
    start_steps: tuple[int, ...]
    """Optimiser steps done before each phase."""
    block_before: int | None = None
    """Sequences of a block in the file of the phases before the last; None if there are none."""


def write_levanter(schedule: Schedule) -> Written:
    """Return all phases as `levanter.yaml`. A block of fewer sequences than domains raises TikmixError."""
    steps = [phase.start_step for phase in schedule.phases]
    grid = block_grid(steps, steps[-1] + schedule.chunk_steps, schedule.batch_sequences)
    wanted = [shares_of(phase.weights) for phase in schedule.phases]
    written = [weights_for(block_counts(shares, grid.block), grid.block) for shares in wanted]
    counts = levanter_counts(written[-1], grid.block)
    realised = Realised(
        grid.start_steps[-1],
        schedule.last.start_tokens + (grid.start_steps[-1] - steps[-1]) * schedule.batch_tokens,
        floats(written[-1]),
        {name: count / grid.block for name, count in counts.items()},
    )
    names = sorted({name for shares in written for name in shares})
    configs = {Quoted(name): Inline(train_urls=(Quoted(schedule.domain(name).path),)) for name in names}
    train_weights = [
        (step, Inline({Quoted(name): share for name, share in shares.items()}))
        for step, shares in zip(grid.start_steps, written, strict=True)
    ]
    data = {"configs": configs, "mixture_block_size": grid.block, "train_weights": train_weights}
    return Written(
        {"levanter.yaml": yaml_text({"data": data})},
        unit=PACKED,
        switch=(
            "stop the run, and resume it with this file, by the step where the new stage starts: train_weights names "
            "all stages, and each domain goes on where it was."
        ),
        realised=realised,
        restarts=False,
        notes=_notes(schedule, grid, wanted[-1], realised.per_token),
    )


def _notes(schedule: Schedule, grid: BlockGrid, wanted: Shares, per_token: Mapping[str, float]) -> list[str]:
    """Say which starts, blocks and weights are not as they were decided."""
    notes = [
        f"{phase_name(number, phase)} starts at step {step} instead, where a block of {grid.block} sequences begins "
        f"({(step - phase.start_step) * schedule.batch_tokens:+d} tokens)."
        for number, (phase, step) in enumerate(zip(schedule.phases, grid.start_steps, strict=True))
        if step != phase.start_step
    ]
    if grid.block_before not in (None, grid.block):
        notes.append(
            f"mixture_block_size was {grid.block_before} before this stage, which its start or length does not allow: "
            "at the change some sequences are skipped or read again. Stages of equally many steps keep it."
        )
    off = {name: abs(per_token[name] - float(share)) for name, share in wanted.items()}
    worst = max(off, key=lambda name: off[name])
    notes.append(
        f"Each block of {grid.block} sequences holds whole sequences of every domain, which moves the weight of "
        f"'{worst}' most, by {off[worst]:.6f}."
    )
    raised = [name for name, share in wanted.items() if share * grid.block < 1 and per_token[name] > 0]
    if raised:
        notes.append(f"Raised to one sequence per block, below which a domain gets none: {', '.join(raised)}.")
    return notes


def block_grid(start_steps: Sequence[int], end_step: int, batch: int) -> BlockGrid:
    """Return the blocks of a run, phase by phase as the files of its rounds have them.

    A size of block that changes from launch to launch moves the domains' cursors, so it is kept as long as it divides
    the new start and is not more than the new phase. Starts of earlier phases stay where their files had them.

    Args:
        start_steps: optimiser steps done before each phase, the first 0, increasing.
        end_step: optimiser steps done when the last phase ends.
        batch: sequences of a global batch.
    """
    grid = _new_grid((), 0, [*start_steps, end_step][1], batch)
    for start, end in pairwise([*start_steps[1:], end_step]):
        if start * batch % grid.block == 0 and grid.block <= (end - start) * batch:
            grid = BlockGrid(grid.block, (*grid.start_steps, start), grid.block)
        else:
            grid = replace(_new_grid(grid.start_steps, start, end, batch), block_before=grid.block)
    return grid


def _new_grid(earlier: tuple[int, ...], start: int, end: int, batch: int) -> BlockGrid:
    """Return blocks that divide the starts of earlier phases, and the new start moved to them as little as can be.

    Among such blocks the largest, and rather one that divides the end too: it is where the next phase will start.
    """
    shortest = min(after - before for before, after in pairwise([*earlier, start, end])) * batch
    common = math.gcd(*earlier) * batch
    sizes = [size for size in range(1, max(1, min(LARGEST_BLOCK, shortest)) + 1) if common % size == 0]
    after = earlier[-1] if earlier else -1
    enough = min(_ENOUGH, sizes[-1] // 2)
    usable = [size for size in sizes if size >= enough and after < _nearest_step(start, size, batch) < end]

    def cost(size: int) -> tuple[int, bool, int]:
        return abs(_nearest_step(start, size, batch) - start), end * batch % size != 0, -size

    size = min(usable or [size for size in sizes if start * batch % size == 0], key=cost)
    return BlockGrid(size, (*earlier, _nearest_step(start, size, batch)))


def _nearest_step(step: int, block: int, batch: int) -> int:
    """Return the nearest step before which whole blocks were read."""
    grid_steps = block // math.gcd(block, batch)
    return (2 * step + grid_steps) // (2 * grid_steps) * grid_steps


def block_counts(shares: Shares, block: int) -> dict[str, int]:
    """Return how many sequences of a block each domain gets, by largest remainder, at least one.

    Raises:
        TikmixError: a block has less than two sequences per domain.
    """
    if 2 * len(shares) > block:
        raise TikmixError(
            f"Levanter deals sequences out in blocks, here of {block}, and {len(shares)} domains have weight: a block "
            "has to have at least two sequences for each. Make the chunk longer, start stages at multiples of more "
            "steps, or leave domains out."
        )
    counts = {name: max(1, int(share * block)) for name, share in shares.items()}
    spare = block - sum(counts.values())
    for name in sorted(shares, key=lambda name: counts[name] - shares[name] * block)[: max(0, spare)]:
        counts[name] += 1
    for _ in range(-spare):
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


def weights_for(counts: dict[str, int], block: int) -> dict[str, Decimal]:
    """Return weights that sum to exactly 1 and that Levanter turns into the counts.

    Where others come within a sequence of the largest count, what truncation leaves would go to one of them; then the
    largest gets one of theirs.
    """
    plain = shares_of({name: count / block for name, count in counts.items()})
    if levanter_counts(plain, block) == counts:
        return plain
    wanted = dict(counts)
    largest = max(wanted, key=lambda name: wanted[name])
    written = _from_above(wanted, largest, block)
    while levanter_counts(written, block) != wanted:
        second = max((name for name in wanted if name != largest), key=lambda name: wanted[name])
        wanted[largest] += 1
        wanted[second] -= 1
        written = _from_above(wanted, largest, block)
    return written


def levanter_counts(shares: Shares, block: int) -> dict[str, int]:
    """Return the sequences per block that Levanter makes of weights."""
    whole = sum(float(share) for share in shares.values())
    counts = {name: int(float(share) / whole * block) for name, share in shares.items()}
    largest = max(counts, key=lambda name: counts[name])
    counts[largest] += block - sum(counts.values())
    return counts


def _from_above(counts: dict[str, int], largest: str, block: int) -> dict[str, Decimal]:
    """Return weights just above the counts' shares, for all but the largest, which is left the rest."""
    units = 10**DECIMALS
    above = {name: count * units // block + 1 for name, count in counts.items()}
    above[largest] = units - sum(value for name, value in above.items() if name != largest)
    return {name: Decimal(value) / Decimal(units) for name, value in above.items()}
