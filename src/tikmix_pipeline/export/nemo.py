"""NeMo: the list `paths` of NeMo 2, by split as JSON, and `data_prefix` of NeMo 1. As Megatron-LM otherwise.

The key of the held-out split is `validation` here, not `valid`.
"""

import json

from tikmix_pipeline.export.about import PACKED, as_stated, exported, restart_notes
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.megatron import blend
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import block, flow_list, quoted
from tikmix_pipeline.export.weights import shares_of

_NOTES = (
    "nemo.py is for PreTrainingDataModule(paths=PATHS), nemo.json the same argument as a dict, nemo.yaml for NeMo 1.",
    "nemo.json states the same blend for train, validation and test, so it validates on training text: replace the "
    "last two by prefixes that were held out. A validation set that is read whole takes prefixes without weights.",
)


def write_nemo(schedule: Schedule) -> Exported:
    """Return the last stage as `nemo.py`, `nemo.json` and `nemo.yaml`.

    Raises:
        TikmixError: a path that a blend cannot hold, or too many domains.
    """
    tokens = blend(schedule, schedule.last, "NeMo")
    pairs = list(zip(tokens[::2], tokens[1::2], strict=True))
    python = ["PATHS = [", *(f"    {quoted(weight)}, {quoted(path)}," for weight, path in pairs), "]"]
    prefixes = flow_list(f"{weight}, {quoted(path)}" for weight, path in pairs)
    by_split = dict.fromkeys(("train", "validation", "test"), tokens)
    realised = as_stated(schedule.last, shares_of(schedule.last.weights))
    return exported(
        schedule,
        "nemo",
        {
            "nemo.py": block(python),
            "nemo.json": json.dumps(by_split, indent=2, ensure_ascii=False) + "\n",
            "nemo.yaml": block(["model:", "  data:", f"    data_prefix: {prefixes}"]),
        },
        realised=realised,
        unit=PACKED,
        switch="save, and launch again from the checkpoint with these paths.",
        notes=(*_NOTES, *restart_notes(schedule, realised)),
    )
