"""OLMo-core: a SourceMixtureList in YAML, for one run per stage. Ratios count tokens and sum to 1.

Source: olmo_core/data/source_mixture.py; src/scripts/train/OLMo3.
"""

from decimal import Decimal

from tikmix_pipeline.export.about import TOKENS, as_stated, exported, restart_notes
from tikmix_pipeline.export.capacity import capacity_notes, repetition_ratios
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import block, flow_list, quoted
from tikmix_pipeline.export.weights import shares_of, text_of

_SWITCH = (
    "start a new run that loads the checkpoint with load_trainer_state=False and load_optim_state=True and reads this "
    "file (keeping the loader's state instead needs ignore_fingerprint_mismatch)."
)


def write_olmo_core(schedule: Schedule) -> Exported:
    """Return the last stage as `olmo_core.yaml`.

    Raises:
        TikmixError: a domain has less text than its ratio asks for.
    """
    shares = shares_of(schedule.last.weights)
    ratios = repetition_ratios(schedule, shares, "OLMo-core")
    lines = ["sources:"]
    for name, share in shares.items():
        lines += _source(name, share, ratios[name], schedule.domain(name).path)
    realised = as_stated(schedule.last, shares)
    notes = (
        f"Build it with SourceMixtureDatasetConfig(source_list=SourceMixtureList.from_yaml(...), "
        f"requested_tokens={schedule.chunk_tokens}, global_batch_size={schedule.batch_tokens}) and sequence_length="
        f"{schedule.context}.",
        *capacity_notes(schedule, ratios),
        *restart_notes(schedule, realised),
    )
    return exported(
        schedule,
        "olmo_core",
        {"olmo_core.yaml": block(lines)},
        realised=realised,
        unit=TOKENS,
        switch=_SWITCH,
        notes=notes,
    )


def _source(name: str, share: Decimal, ratio: Decimal | None, path: str) -> list[str]:
    return [
        f"  - source_name: {quoted(name)}",
        f"    target_ratio: {text_of(share)}",
        *([] if ratio is None else [f"    max_repetition_ratio: {text_of(ratio)}"]),
        f"    paths: {flow_list([quoted(path)])}",
    ]
