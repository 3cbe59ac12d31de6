"""Trainers whose one file has all phases of the run: nanotron and llm-foundry.

`nanotron`     `data_stages` with lists of folders and weights, which count sequences. The last stage of the file is the
               one that is trained; folders keep count of what was read. Lists only: the mapping of folders to weights
               in nanotron's documents is refused by its reader.
`llm_foundry`  streams with proportions, and the callback `curriculum_learning` for the phases after the first; the
               durations of all add up to max_duration. Proportions count samples of `max_seq_len` tokens, which
               batches take at random from all streams: they hold on average. `batching_method: stratified` would round
               them to whole samples of a batch, and raises ValueError for a stream that gets none.

Sources: src/nanotron/config/config.py, run_train.py, data/nanoset.py; llmfoundry/data/text_data.py,
callbacks/curriculum_learning_callback.py, streaming/base/stream.py, batching.
"""

from typing import Any

from tikmix_pipeline.export.exported import PACKED, Written
from tikmix_pipeline.export.schedule import Phase, Schedule
from tikmix_pipeline.export.syntax import Inline, Quoted, yaml_text
from tikmix_pipeline.export.weights import shares_of


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
            f"the callback changes over by itself at token {schedule.last.start_tokens}."
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
