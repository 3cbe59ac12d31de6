"""llm-foundry: streams with proportions, and the callback `curriculum_learning` for the stages after the first.

Proportions count samples of `max_seq_len` tokens, which batches take at random from all streams: they hold on average.
`batching_method: stratified` would round them to whole samples of a batch, and raises ValueError for a stream that gets
none. The durations of all stages add up to max_duration.
Source: llmfoundry/data/text_data.py, callbacks/curriculum_learning_callback.py; streaming/base/stream.py, batching.
"""

from tikmix_pipeline.export.about import PACKED, as_stated, exported, restart_notes
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.schedule import Schedule, Stage
from tikmix_pipeline.export.syntax import block, quoted
from tikmix_pipeline.export.weights import shares_of, text_of


def write_llm_foundry(schedule: Schedule) -> Exported:
    """Return all stages as `llm_foundry.yaml`, keys of a training configuration."""
    ends = [*(stage.start_tokens for stage in schedule.stages[1:]), schedule.end_tokens]
    durations = [end - stage.start_tokens for stage, end in zip(schedule.stages, ends, strict=True)]
    lines = [f"max_duration: {schedule.end_tokens}tok", *_train_loader(schedule)]
    if len(durations) > 1:
        lines += ["callbacks:", "  curriculum_learning:", f"    duration: {durations[0]}tok", "    schedule:"]
        for stage, duration in zip(schedule.stages[1:], durations[1:], strict=True):
            lines += [f"    - duration: {duration}tok", "      dataset:", "        streams:"]
            lines += _streams(schedule, stage, "          ")
    realised = as_stated(schedule.last, shares_of(schedule.last.weights))
    return exported(
        schedule,
        "llm_foundry",
        {"llm_foundry.yaml": block(lines)},
        realised=realised,
        unit=PACKED,
        switch=_switch(schedule),
        notes=(
            "Each path is the folder that holds a stream's index.json; data in folders by split need `split` beside "
            "`local`.",
            "Proportions hold on average, not in each batch. Leave batching_method at its default, random: stratified "
            "rounds them to whole samples of a batch, and refuses a stream that gets none.",
            *restart_notes(schedule, realised),
        ),
    )


def _train_loader(schedule: Schedule) -> list[str]:
    return [
        "train_loader:",
        "  name: text",
        "  dataset:",
        "    streams:",
        *_streams(schedule, schedule.stages[0], "      "),
        "    shuffle: true  # without it streams come one after the other",
        f"    max_seq_len: {schedule.context}",
    ]


def _streams(schedule: Schedule, stage: Stage, indent: str) -> list[str]:
    return [
        f"{indent}{quoted(name)}: {{local: {quoted(schedule.domain(name).path)}, proportion: {text_of(share)}}}"
        for name, share in shares_of(stage.weights).items()
    ]


def _switch(schedule: Schedule) -> str:
    if len(schedule.stages) == 1:
        return "train with this file; the callback curriculum_learning comes with the second mixture."
    return (
        "resume with this file: max_duration grows with each stage and finished stages have to be as they were; the "
        f"callback changes over by itself at token {schedule.last.start_tokens}."
    )
