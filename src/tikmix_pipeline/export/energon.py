"""Megatron-Energon: a `MetadatasetV2` with a blend. Weights count samples and are above 0; paths are relative to it.

Source: megatron/energon/metadataset/metadataset_v2.py.
"""

from tikmix_pipeline.export.about import as_stated, exported, restart_notes
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import block, quoted
from tikmix_pipeline.export.weights import shares_of, text_of

_UNIT = "samples, so tokens where every sample is a packed sequence of one length"


def write_energon(schedule: Schedule) -> Exported:
    """Return the last stage as `energon.yaml`, with a blend for the split `train`."""
    shares = shares_of(schedule.last.weights)
    lines = ["__module__: megatron.energon", "__class__: MetadatasetV2", "splits:", "  train:", "    blend:"]
    for name, share in shares.items():
        path = quoted(schedule.domain(name).path)
        lines.append(f"      - {{weight: {text_of(share)}, path: {path}}}")
    realised = as_stated(schedule.last, shares)
    return exported(
        schedule,
        "energon",
        {"energon.yaml": block(lines)},
        realised=realised,
        unit=_UNIT,
        switch="none in mid-run: save, and launch again from the checkpoint with this file.",
        notes=(
            "Paths are relative to the folder of this file. It has no split `val`: add one with held-out data.",
            "Samples that are packed only after blending make the weights count samples of any length.",
            *restart_notes(schedule, realised),
        ),
    )
