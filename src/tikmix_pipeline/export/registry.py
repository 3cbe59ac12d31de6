"""The trainers by name, and the one call that writes for any of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.export.exported import Written, headed
from tikmix_pipeline.export.interleaved import write_llama_factory, write_ms_swift
from tikmix_pipeline.export.megatron import (
    write_energon,
    write_gpt_neox,
    write_megatron,
    write_nemo,
    write_nemo_automodel,
)
from tikmix_pipeline.export.olmo import write_olmix, write_olmo_core
from tikmix_pipeline.export.phased import write_levanter, write_llm_foundry, write_nanotron
from tikmix_pipeline.export.python_code import (
    write_hf_datasets,
    write_litgpt,
    write_torchtitan,
    write_torchtitan_documents,
)
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.files import read_json, replacing

_SUMMARY = "exports.json"

Writer = Callable[[Schedule], Written]
"""From a schedule to the files of one trainer; raises TikmixError for what the trainer cannot take."""

TRAINERS: Mapping[str, Writer] = {
    "megatron": write_megatron,
    "olmo_core": write_olmo_core,
    "levanter": write_levanter,
    "nanotron": write_nanotron,
    "llm_foundry": write_llm_foundry,
    "gpt_neox": write_gpt_neox,
    "olmix": write_olmix,
    "hf_datasets": write_hf_datasets,
    "nemo": write_nemo,
    "energon": write_energon,
    "torchtitan": write_torchtitan,
    "torchtitan_documents": write_torchtitan_documents,
    "litgpt": write_litgpt,
    "llama_factory": write_llama_factory,
    "ms_swift": write_ms_swift,
    "nemo_automodel": write_nemo_automodel,
}


def check_trainer(name: str, source: str) -> None:
    """Refuse a trainer that nothing is written for, naming the nearest; `source` is the parameter that named it."""
    if name not in TRAINERS:
        # people write a trainer's name as its authors do: OLMo-core, GPT-NeoX
        end = nearest_name(name.lower().replace("-", "_").replace(" ", "_"), TRAINERS)
        raise TikmixError(f"{source} names the trainer '{name}', which nothing is written for.{end}")


def write(name: str, schedule: Schedule) -> Written:
    """Return the files of one trainer, each with a text about itself.

    Raises:
        TikmixError: there is no such trainer, or it cannot take the schedule.
    """
    check_trainer(name, "The export")
    return headed(name, schedule, TRAINERS[name](schedule))


def write_folder(trainers: Sequence[str], schedule: Schedule, folder: Path) -> None:
    """Write the files of some trainers (as `write` does), and a summary of them, whole or not at all."""
    written = [write(trainer, schedule) for trainer in trainers]
    summary = [
        {"trainer": one.trainer, "files": sorted(one.files), "switch": one.switch, "notes": list(one.notes)}
        for one in written
    ]
    with replacing(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, text in ((name, text) for one in written for name, text in one.files.items()):
            (temporary / name).write_text(text, encoding="utf-8")
        (temporary / _SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def read_summary(folder: Path) -> list[dict[str, Any]]:
    """Read what was written for which trainer, and how to change over to it."""
    summary: list[dict[str, Any]] = read_json(folder / _SUMMARY)
    return summary
