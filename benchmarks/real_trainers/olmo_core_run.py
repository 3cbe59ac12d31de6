"""OLMo-core's own trainer on an exported mixture; runs in the environment of requirements-olmo-core.txt.

    python olmo_core_run.py settings.json

The settings name the exported file, the folder to work in, batch and sequence in tokens, the tokens to train, and the
first id of each domain's tokens. Writes `result.json`: the tokens of each domain that the model was trained on, and
what the checkpoint says of itself.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from olmo_core.data import NumpyDataLoaderConfig, NumpyDatasetDType, NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig, SourceMixtureList
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import AdamWConfig
from olmo_core.train import Duration, TrainerConfig, prepare_training_environment, teardown_training_environment
from olmo_core.train.callbacks import CheckpointerCallback
from olmo_core.train.train_module import TransformerTrainModule, TransformerTrainModuleConfig


def main() -> None:
    """Train, count, and write what was found."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(settings["folder"])
    prepare_training_environment(seed=0, backend=None)
    tokenizer = TokenizerConfig(vocab_size=32, eos_token_id=1, pad_token_id=0)
    mixture = SourceMixtureDatasetConfig(
        source_list=SourceMixtureList.from_yaml(settings["export"]),
        requested_tokens=settings["tokens"],
        global_batch_size=settings["batch"],
        render_tables=False,
        quiet=True,
    )
    context = settings["context"]
    # from so small a vocabulary it would conclude that a token has one byte
    kept = {"dtype": NumpyDatasetDType.uint16, "work_dir": str(folder / "work")}
    dataset = NumpyFSLDatasetConfig.from_src_mix(mixture, tokenizer=tokenizer, sequence_length=context, **kept).build()
    loader = NumpyDataLoaderConfig(global_batch_size=settings["batch"], seed=0, num_workers=0).build(dataset)
    size = {"d_model": 32, "n_layers": 1, "n_heads": 2, "hidden_size_multiple_of": 32}
    model = TransformerConfig.llama_like(vocab_size=tokenizer.padded_vocab_size(), **size).build(init_device="cpu")
    module = TransformerTrainModuleConfig(
        rank_microbatch_size=settings["batch"], max_sequence_length=context, optim=AdamWConfig(lr=1e-3)
    ).build(model, device=torch.device("cpu"))
    counted = count_tokens(np.array(settings["first_ids"]))
    trainer = TrainerConfig(
        save_folder=str(folder / "checkpoints"),
        save_overwrite=True,
        max_duration=Duration.tokens(settings["tokens"]),
        metrics_collect_interval=1,
    )
    trainer.with_callback("checkpointer", CheckpointerCallback(save_interval=10**6, save_async=False)).build(
        module, loader
    ).fit()
    teardown_training_environment()
    saved = (folder / "checkpoints").glob("step*/train/rank0.pt")
    last = max(saved, key=lambda path: int(path.parents[1].name.removeprefix("step")))
    state = torch.load(last, weights_only=False)
    told = {name: state[name] for name in ("global_step", "global_train_tokens_seen", "epoch")}
    result = {"counted": counted.tolist(), "batches_an_epoch": loader.total_batches, **told}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def count_tokens(first_ids: np.ndarray) -> np.ndarray:
    """Have the trainer's module count the tokens of each domain in every batch that it is trained on."""
    counts_K = np.zeros(len(first_ids), dtype=np.int64)
    train_batch = TransformerTrainModule.train_batch

    def counting(self, batch, dry_run=False):
        if not dry_run:
            ids_BS = batch["input_ids"].cpu().numpy()
            # a sequence is of one domain, and ends of documents have the lowest id
            domains_B = np.searchsorted(first_ids, ids_BS.max(axis=1), side="right") - 1
            counts_K[:] += np.bincount(domains_B, minlength=len(first_ids)) * ids_BS.shape[1]
        return train_batch(self, batch, dry_run=dry_run)

    TransformerTrainModule.train_batch = counting
    return counts_K


if __name__ == "__main__":
    main()
