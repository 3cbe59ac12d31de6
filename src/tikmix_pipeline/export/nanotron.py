"""nanotron: `data_stages` with lists of folders and weights.

Weights count sequences. The last stage of the file is the one that is trained; folders keep count of what was read.
Lists only: the mapping of folders to weights in nanotron's documents is refused by its reader.
Source: src/nanotron/config/config.py, run_train.py, data/nanoset.py.
"""

from tikmix_pipeline.export.about import PACKED, as_stated, exported
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.schedule import Schedule, Stage
from tikmix_pipeline.export.syntax import block, flow_list, quoted
from tikmix_pipeline.export.weights import shares_of, text_of


def write_nanotron(schedule: Schedule) -> Exported:
    """Return all stages as `nanotron.yaml`, to go into a configuration in place of its `data_stages`."""
    lines = ["data_stages:"]
    for number, stage in enumerate(schedule.stages, start=1):
        lines += _stage(schedule, stage, number)
    done = schedule.last.start_step
    switch = (
        f"stop at exactly {done} done steps and resume with this file, whose last stage is then trained; another step "
        "raises ValueError."
        if done
        else "launch with this file; there is no earlier mixture to switch from."
    )
    return exported(
        schedule,
        "nanotron",
        {"nanotron.yaml": block(lines)},
        realised=as_stated(schedule.last, shares_of(schedule.last.weights)),
        unit=PACKED,
        switch=switch,
        notes=(
            f"Stages have one sequence length; tokens.sequence_length is {schedule.context} here. Steps in "
            "start_training_step count from 1.",
        ),
    )


def _stage(schedule: Schedule, stage: Stage, number: int) -> list[str]:
    shares = shares_of(stage.weights)
    folders = flow_list(quoted(schedule.domain(name).path) for name in shares)
    return [
        f"- name: stage {number}",
        f"  start_training_step: {stage.start_step + 1}",
        "  data:",
        "    seed: 42",
        "    num_loading_workers: 1",
        "    dataset:",
        f"      dataset_folder: {folders}",
        f"      dataset_weights: {flow_list(text_of(share) for share in shares.values())}",
    ]
