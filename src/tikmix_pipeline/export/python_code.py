"""Trainers that take their mixture as lines of Python: Hugging Face datasets, torchtitan and litgpt.

`hf_datasets`           probabilities of `interleave_datasets`, which count documents. Zero probabilities hang or
                        misbehave (datasets #7147)
`torchtitan`            a `DatasetMixConfig` that mixes rows packed by domain: weights count rows, so tokens
`torchtitan_documents`  the same, mixing documents that are packed afterwards: weights count documents
`litgpt`                arguments of litdata's `CombinedStreamingDataset`, whose weights count samples. They belong into
                        a data module, since litgpt's configuration has no field for them

Weights that count documents are p_j ∝ w_j / mean tokens of a document of j.
Sources: datasets' `interleave_datasets`; torchtitan/components/data (README; Grain-based since PR #4088); litdata.
"""

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.exported import DOCUMENTS, PACKED, Realised, Written
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import Shares, block, floats, quoted, shares_of, text_of

_DECIMALS = 12
"""More for documents than for tokens: a share of few but long ones is small, and stands for many tokens."""
_HF_DATASETS = """

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
_TORCHTITAN = """

def train_mix(DatasetMixConfig, WeightedDataset, open_dataset):
    \"\"\"Blend the domains. `open_dataset` makes the configuration of a domain's {child} from its path.\"\"\"
    return DatasetMixConfig(
        datasets=tuple(
            WeightedDataset(dataset=open_dataset(path), weight=WEIGHTS[name]) for name, path in PATHS.items()
        )
    )
"""
_LITGPT = """

def train_dataset(open_dataset, seed=42):
    \"\"\"Blend the domains. `open_dataset` makes a litdata.StreamingDataset of a folder, packed to sequences.\"\"\"
    from litdata import CombinedStreamingDataset

    datasets = [open_dataset(folder) for folder in FOLDERS]
    return CombinedStreamingDataset(datasets=datasets, seed=seed, weights=WEIGHTS, iterate_over_all=False)
"""


def write_hf_datasets(schedule: Schedule) -> Written:
    """Return the last phase as `hf_datasets.py` and, for other programs, `hf_datasets.json`.

    Raises:
        TikmixError: a domain's mean number of tokens per document is not known.
    """
    documents, realised = by_documents(schedule, "interleave_datasets")
    # numbers by hand: json writes 1e-05
    rows = [
        f'    {{"name": {quoted(name)}, "path": {quoted(schedule.domain(name).path)}, "probability": {text_of(share)}}}'
        for name, share in documents.items()
    ]
    json_lines = ["{", f'  "unit": {quoted(DOCUMENTS)},', '  "datasets": [', ",\n".join(rows), "  ]", "}"]
    skips = "open_dataset skips the documents that were read"
    return Written(
        {
            "hf_datasets.py": _dictionaries(schedule, "PROBABILITIES", documents) + _HF_DATASETS,
            "hf_datasets.json": block(json_lines),
        },
        unit=DOCUMENTS,
        switch=f"build a new iterator with these probabilities; every domain starts over, unless {skips}.",
        notes=(
            "all_exhausted starts a domain over when it ends; the default stops at the first that does. In workers and "
            "ranks the strategy applies per process.",
            "The share of tokens holds where every document is trained on whole: truncation to a length changes it.",
        ),
        realised=realised,
        unless=skips,
    )


def write_torchtitan(schedule: Schedule) -> Written:
    """Return the last phase as `torchtitan.py`, for domains that are packed before they are mixed."""
    return _torchtitan(schedule, "torchtitan", shares_of(schedule.last.weights), PACKED, None)


def write_torchtitan_documents(schedule: Schedule) -> Written:
    """Return the last phase as `torchtitan_documents.py`, for documents mixed before packing; see `by_documents`."""
    documents, realised = by_documents(schedule, "torchtitan, where it mixes before it packs,")
    return _torchtitan(schedule, "torchtitan_documents", documents, DOCUMENTS, realised)


def _torchtitan(schedule: Schedule, trainer: str, shares: Shares, unit: str, realised: Realised | None) -> Written:
    function = _TORCHTITAN.format(child="packed rows" if unit == PACKED else "documents")
    return Written(
        {f"{trainer}.py": _dictionaries(schedule, "WEIGHTS", shares) + function},
        unit=unit,
        switch=(
            "none by resuming, which needs the configuration unchanged: start a new run from the checkpoint's weights "
            "and optimiser with this mix."
        ),
        notes=(
            "Weights do not have to sum to 1. Domains are in the order of their names: a domain that comes between "
            "others gives those after it another seed.",
        ),
        realised=realised,
    )


def write_litgpt(schedule: Schedule) -> Written:
    """Return the last phase as `litgpt.py`."""
    shares = shares_of(schedule.last.weights)
    lines = [
        "FOLDERS = (",
        *(f"    {quoted(schedule.domain(name).path)}," for name in shares),
        ")",
        "WEIGHTS = (",
        *(f"    {text_of(share)},  # {name}" for name, share in shares.items()),
        ")",
    ]
    return Written(
        {"litgpt.py": block(lines) + _LITGPT},
        unit=PACKED,
        switch="none in mid-run: save, and start again from the checkpoint with a data module that has these weights.",
        notes=(
            "iterate_over_all=False draws by weight; with True litdata refuses weights. It stops when one domain ends.",
        ),
    )


def by_documents(schedule: Schedule, trainer: str) -> tuple[Shares, Realised]:
    """Return shares of documents that give the last phase's shares of tokens, and what drawing by them amounts to.

    Raises:
        TikmixError: a domain with weight has no mean number of tokens per document.
    """
    last = schedule.last
    shares, means = shares_of(last.weights), {}
    for name in shares:
        mean = schedule.domain(name).mean_tokens_per_document
        if mean is None:
            raise TikmixError(
                f"{trainer} draws documents, so weights per token have to be divided by the mean tokens of a document, "
                f"and mean_tokens_per_document of the domain '{name}' is not known. Give it, or export to a trainer "
                "whose weights count tokens."
            )
        means[name] = mean
    documents = shares_of({name: float(share) / means[name] for name, share in shares.items()}, _DECIMALS)
    tokens = {name: float(share) * means[name] for name, share in documents.items()}
    whole = sum(tokens.values())
    per_token = {name: count / whole for name, count in tokens.items()}
    return documents, Realised(last.start_step, last.start_tokens, floats(documents), per_token)


def _dictionaries(schedule: Schedule, name: str, shares: Shares) -> str:
    """Return lines of Python: the domains' paths as the dictionary `PATHS`, their shares as one of that name."""
    return block(
        [
            "PATHS = {",
            *(f"    {quoted(domain)}: {quoted(schedule.domain(domain).path)}," for domain in shares),
            "}",
            f"{name} = {{",
            *(f"    {quoted(domain)}: {text_of(share)}," for domain, share in shares.items()),
            "}",
        ]
    )
