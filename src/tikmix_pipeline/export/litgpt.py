"""litgpt: arguments of litdata's `CombinedStreamingDataset`, as lines of Python. Weights count samples.

litgpt has no field for weights in its configuration: they belong into a data module.
"""

from tikmix_pipeline.export.about import PACKED, as_stated, exported, restart_notes
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import block, quoted
from tikmix_pipeline.export.weights import shares_of, text_of

_BODY = """
def train_dataset(open_dataset, seed=42):
    \"\"\"Blend the domains. `open_dataset` makes a litdata.StreamingDataset of a folder, packed to sequences.\"\"\"
    from litdata import CombinedStreamingDataset

    datasets = [open_dataset(folder) for folder in FOLDERS]
    return CombinedStreamingDataset(datasets=datasets, seed=seed, weights=WEIGHTS, iterate_over_all=False)
"""


def write_litgpt(schedule: Schedule) -> Exported:
    """Return the last stage as `litgpt.py`."""
    shares = shares_of(schedule.last.weights)
    lines = [
        "FOLDERS = (",
        *(f"    {quoted(schedule.domain(name).path)}," for name in shares),
        ")",
        "WEIGHTS = (",
        *(f"    {text_of(share)},  # {name}" for name, share in shares.items()),
        ")",
        "",
    ]
    realised = as_stated(schedule.last, shares)
    return exported(
        schedule,
        "litgpt",
        {"litgpt.py": block(lines) + _BODY},
        realised=realised,
        unit=PACKED,
        switch="none in mid-run: save, and start again from the checkpoint with a data module that has these weights.",
        notes=(
            "iterate_over_all=False draws by weight; with True litdata refuses weights. It stops when one domain ends.",
            *restart_notes(schedule, realised),
        ),
    )
