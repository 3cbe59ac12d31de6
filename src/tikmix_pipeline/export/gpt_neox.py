"""GPT-NeoX: lists of paths and weights, for one run per stage. Weights count samples of a fixed length.

Source: configs/neox_arguments.md, megatron/data/data_utils.py.
"""

from tikmix_pipeline.export.about import PACKED, as_stated, exported, restart_notes
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.limits import check_count, check_prefixes
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import block, flow_list, quoted
from tikmix_pipeline.export.weights import shares_of, text_of

MOST_DATASETS = 254

_NOTES = (
    "Paths of all three splits are required together, so the file validates and tests on the training text: replace "
    "valid-data-paths and test-data-paths by prefixes that were held out.",
    "train_epochs must not be set: any weight but 1.0 then raises ValueError. weight_by_num_documents stays false, or "
    "these weights are ignored.",
)


def write_gpt_neox(schedule: Schedule) -> Exported:
    """Return the last stage as `gpt_neox.yml`, to be given beside the model's configuration.

    Raises:
        TikmixError: a path that is no prefix, or more domains than GPT-NeoX counts.
    """
    shares = shares_of(schedule.last.weights)
    check_prefixes(schedule, shares, "GPT-NeoX")
    check_count(len(shares), MOST_DATASETS, "GPT-NeoX")
    paths = flow_list(quoted(schedule.domain(name).path) for name in shares)
    weights = flow_list(text_of(share) for share in shares.values())
    lines = ["{"]
    for split in ("train", "valid", "test"):
        lines += [f'  "{split}-data-paths": {paths},', f'  "{split}-data-weights": {weights},']
    lines += ['  "weight_by_num_documents": false,', "}"]
    realised = as_stated(schedule.last, shares)
    return exported(
        schedule,
        "gpt_neox",
        {"gpt_neox.yml": block(lines)},
        realised=realised,
        unit=PACKED,
        switch="none in mid-run: start a new run from the checkpoint, with this file in place of the last one.",
        notes=(*_NOTES, *restart_notes(schedule, realised)),
    )
