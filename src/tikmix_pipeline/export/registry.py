"""The trainers by name, and the one call that writes for any of them."""

from collections.abc import Callable, Mapping

from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.export.energon import write_energon
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.gpt_neox import write_gpt_neox
from tikmix_pipeline.export.hf_datasets import write_hf_datasets
from tikmix_pipeline.export.levanter import write_levanter
from tikmix_pipeline.export.litgpt import write_litgpt
from tikmix_pipeline.export.llm_foundry import write_llm_foundry
from tikmix_pipeline.export.megatron import write_megatron
from tikmix_pipeline.export.nanotron import write_nanotron
from tikmix_pipeline.export.nemo import write_nemo
from tikmix_pipeline.export.olmix import write_olmix
from tikmix_pipeline.export.olmo_core import write_olmo_core
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.torchtitan import write_torchtitan, write_torchtitan_documents

Writer = Callable[[Schedule], Exported]
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
}


def check_trainer(name: str, source: str) -> None:
    """Refuse a trainer that nothing is written for.

    Args:
        name: as in `TRAINERS`.
        source: the parameter that named it, for the message.

    Raises:
        TikmixError: there is no such trainer; the nearest name and all names are in the message.
    """
    if name not in TRAINERS:
        # people write a trainer's name as its authors do: OLMo-core, GPT-NeoX
        end = nearest_name(name.lower().replace("-", "_").replace(" ", "_"), TRAINERS)
        raise TikmixError(f"{source} names the trainer '{name}', which nothing is written for.{end}")


def write(name: str, schedule: Schedule) -> Exported:
    """Return the files of one trainer.

    Args:
        name: as in `TRAINERS`.
        schedule: all mixtures so far, the last of them new.

    Raises:
        TikmixError: there is no such trainer, or it cannot take the schedule.
    """
    check_trainer(name, "The export")
    return TRAINERS[name](schedule)
