"""torchtitan: a `DatasetMixConfig` as lines of Python, in two forms.

`torchtitan` packs each domain into rows and then mixes: weights count rows, so tokens.
`torchtitan_documents` mixes documents and then packs: weights count documents.
Source: torchtitan/components/data (README; Grain-based since PR #4088).
"""

from tikmix_pipeline.export.about import DOCUMENTS, PACKED, as_stated, by_documents, exported, restart_notes
from tikmix_pipeline.export.exported import Exported, Realised
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import block, python_dicts
from tikmix_pipeline.export.weights import Shares, shares_of

_SWITCH = (
    "none by resuming, which needs the configuration unchanged: start a new run from the checkpoint's weights and "
    "optimiser with this mix."
)
_NOTES = (
    "Weights do not have to sum to 1. Domains are in the order of their names: a domain that comes between others "
    "gives those after it another seed.",
)


def write_torchtitan(schedule: Schedule) -> Exported:
    """Return the last stage as `torchtitan.py`, for domains that are packed before they are mixed."""
    shares = shares_of(schedule.last.weights)
    return _written(schedule, "torchtitan", shares, as_stated(schedule.last, shares), PACKED)


def write_torchtitan_documents(schedule: Schedule) -> Exported:
    """Return the last stage as `torchtitan_documents.py`, for documents that are mixed before they are packed.

    Raises:
        TikmixError: a domain's mean number of tokens per document is not known.
    """
    documents, realised = by_documents(schedule, "torchtitan, where it mixes before it packs,")
    return _written(schedule, "torchtitan_documents", documents, realised, DOCUMENTS)


def _written(schedule: Schedule, trainer: str, shares: Shares, realised: Realised, unit: str) -> Exported:
    child = "packed rows" if unit == PACKED else "documents"
    lines = [
        *python_dicts(schedule, "WEIGHTS", shares),
        "",
        "",
        "def train_mix(DatasetMixConfig, WeightedDataset, open_dataset):",
        f'    """Blend the domains. `open_dataset` makes the configuration of a domain\'s {child} from its path."""',
        "    return DatasetMixConfig(",
        "        datasets=tuple(",
        "            WeightedDataset(dataset=open_dataset(path), weight=WEIGHTS[name]) for name, path in PATHS.items()",
        "        )",
        "    )",
    ]
    return exported(
        schedule,
        trainer,
        {f"{trainer}.py": block(lines)},
        realised=realised,
        unit=unit,
        switch=_SWITCH,
        notes=(*_NOTES, *restart_notes(schedule, realised)),
    )
