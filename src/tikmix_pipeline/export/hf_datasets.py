"""Hugging Face datasets: probabilities of `interleave_datasets`, which count documents.

    p_j ∝ w_j / mean tokens of a document of j

Zero probabilities hang or misbehave (datasets #7147), and they sum to 1.
"""

from tikmix_pipeline.export.about import DOCUMENTS, by_documents, exported, restart_notes
from tikmix_pipeline.export.exported import Exported
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import block, python_dicts, quoted
from tikmix_pipeline.export.weights import Shares, text_of

_BODY = """
def train_dataset(open_dataset, seed=42):
    \"\"\"Interleave the domains. `open_dataset` loads the documents of a path.\"\"\"
    from datasets import interleave_datasets

    return interleave_datasets(
        [open_dataset(path) for path in PATHS.values()],
        probabilities=[PROBABILITIES[name] for name in PATHS],
        seed=seed,
        stopping_strategy="all_exhausted",
    )
"""
_SKIPS = "open_dataset skips the documents that were read"
_NOTES = (
    "all_exhausted starts a domain over when it ends; the default stops at the first that does. In workers and ranks "
    "the strategy applies per process.",
    "The share of tokens holds where every document is trained on whole: truncation to a length changes it.",
)


def write_hf_datasets(schedule: Schedule) -> Exported:
    """Return the last stage as `hf_datasets.py` and, for other programs, `hf_datasets.json`.

    Raises:
        TikmixError: a domain's mean number of tokens per document is not known.
    """
    documents, realised = by_documents(schedule, "interleave_datasets")
    python = block([*python_dicts(schedule, "PROBABILITIES", documents), ""]) + _BODY
    return exported(
        schedule,
        "hf_datasets",
        {"hf_datasets.py": python, "hf_datasets.json": _json(schedule, documents)},
        realised=realised,
        unit=DOCUMENTS,
        switch=f"build a new iterator with these probabilities; every domain starts over, unless {_SKIPS}.",
        notes=(*_NOTES, *restart_notes(schedule, realised, unless=_SKIPS)),
    )


def _json(schedule: Schedule, documents: Shares) -> str:
    # numbers by hand: json writes 1e-05
    rows = [
        f'    {{"name": {quoted(name)}, "path": {quoted(schedule.domain(name).path)}, "probability": {text_of(share)}}}'
        for name, share in documents.items()
    ]
    return block(["{", f'  "unit": {quoted(DOCUMENTS)},', '  "datasets": [', ",\n".join(rows), "  ]", "}"])
