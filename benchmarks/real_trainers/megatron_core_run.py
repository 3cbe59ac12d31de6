"""Megatron-core's own data sets on an exported blend; runs in the environment of requirements-olmo-core.txt.

    python megatron_core_run.py settings.json

Megatron-LM's trainer is no package and asks for a GPU, so no model is trained: the blend is built as its trainer builds
it, and read in the order of training, sample after sample. Writes `result.json`: tokens of each domain in them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from megatron.core.datasets.utils import get_blend_from_list


class Tokenizer:
    """What Megatron-core asks of a tokenizer to describe a data set."""

    eod = 1
    pad = 0
    vocab_size = 32
    unique_identifiers: dict[str, str] = {}  # noqa: RUF012


def main() -> None:
    """Build the data sets, read what a run of so many samples reads, and count it."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder, context = Path(settings["folder"]), settings["context"]
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    for tokens, prefix in settings["documents"].items():
        write_documents(Path(tokens), prefix)
    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=context,
        blend=get_blend_from_list(Path(settings["export"]).read_text(encoding="utf-8").split()),
        split="1,0,0",
        path_to_cache=str(folder / "cache"),
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    samples = settings["tokens"] // context
    train, _, _ = BlendedMegatronDatasetBuilder(GPTDataset, [samples, 0, 0], lambda: True, config).build()
    first_ids = np.array(settings["first_ids"])
    counts_K = np.zeros(len(first_ids), dtype=np.int64)
    for number in range(samples):
        ids_S = train[number]["tokens"].numpy()
        counts_K[np.searchsorted(first_ids, ids_S.max(), side="right") - 1] += len(ids_S)
    (folder / "result.json").write_text(
        json.dumps({"counted": counts_K.tolist(), "samples": samples}), encoding="utf-8"
    )


def write_documents(tokens: Path, prefix: str) -> None:
    """Write the documents of a file of tokens, each of which ends with token 1, as Megatron's .bin and .idx."""
    ids = np.fromfile(tokens, np.uint16)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for document in np.split(ids, np.flatnonzero(ids == 1) + 1):
        if len(document):
            builder.add_document(torch.from_numpy(document.astype(np.int64)), [len(document)])
    builder.finalize(f"{prefix}.idx")


if __name__ == "__main__":
    main()
