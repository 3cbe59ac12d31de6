"""A team to try `remix` with: text in three formats, task files, and checkpoints of three families trained on it.

    python examples/team.py team

writes, from the real text of the default corpus (docs/corpora.md):

    team/data/{code,encyclopedia,speeches}/part-*.jsonl.zst     JSONL, compressed
    team/data/{licences,recipes}/train.parquet                  Parquet, its column named `content`
    team/data/{quotes,scripture}/                               a dataset that `save_to_disk` of `datasets` wrote
    team/tasks/*.jsonl                                          questions with gold answers
    team/checkpoints/{llama,gpt2,pythia}/step-{200,400}/        what `save_pretrained` writes, each with a tokenizer

The models have 0.6 to 0.9M parameters and are saved as a team might: in bfloat16, float32 and float16, in several files
or one, with tied and with separate embeddings. A few minutes on two cores; what is there is kept.
"""

import argparse
import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from tqdm import tqdm

from tikmix_pipeline.corpus.sources import read_records, read_source
from tikmix_pipeline.corpus.tokenizer import END_OF_TEXT, train_tokenizer
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing
from tikmix_pipeline.parameters import CorpusParameters

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
COMPRESSED, PARQUET, DATASETS = ("code", "encyclopedia", "speeches"), ("licences", "recipes"), ("quotes", "scripture")
SHARDS = 3
FAMILIES = ("llama", "gpt2", "pythia")
SAVED_STEPS = (200, 400)
LAST = f"step-{SAVED_STEPS[-1]}"
BATCH, CONTEXT = 8, 256


def main() -> None:
    """Write whatever is not there yet."""
    parser = argparse.ArgumentParser(description="Make a team's data, tasks and checkpoints.")
    parser.add_argument("folder", type=Path, help="where to put them")
    folder = parser.parse_args().folder
    base = yaml.safe_load((ROOT / "conf" / "base" / "parameters_corpus.yml").read_text(encoding="utf-8"))
    corpus = CorpusParameters.model_validate(base["corpus"])
    families = [family for family in FAMILIES if not (folder / "checkpoints" / family / LAST).exists()]
    if not families and (folder / "tasks").exists():
        return
    write_tasks(corpus, folder / "tasks")
    texts = {name: list(_documents(corpus, name)) for name in tqdm(corpus.domains, desc="reading")}
    write_domains(texts, folder / "data")
    for family in families:
        train(family, texts, folder / "checkpoints" / family)


def _documents(corpus: CorpusParameters, name: str) -> Iterator[str]:
    for source in corpus.domains[name].sources:
        yield from read_source(source, root=ROOT, downloads=ROOT / "data" / "01_raw")


def write_domains(texts: dict[str, list[str]], folder: Path) -> None:
    """Write every domain in its format."""
    for name in COMPRESSED:
        for shard in range(SHARDS):
            with _new(folder / name / f"part-{shard}.jsonl.zst") as path, pa.output_stream(str(path), "zstd") as file:
                for text in texts[name][shard::SHARDS]:
                    file.write((json.dumps({"text": text}) + "\n").encode())
    for name in PARQUET:
        with _new(folder / name / "train.parquet") as path:
            pq.write_table(pa.table({"content": texts[name]}), path, row_group_size=500)
    for name in DATASETS:
        from datasets import Dataset

        with replacing(folder / name) as path:
            Dataset.from_dict({"text": texts[name]}).save_to_disk(path)


def write_tasks(corpus: CorpusParameters, folder: Path) -> None:
    """Write the items of every task as they are."""
    for name, task in corpus.tasks.items():
        with _new(folder / f"{name}.jsonl") as path, path.open("w", encoding="utf-8") as file:
            for _, record in read_records(task.sources, root=ROOT, downloads=ROOT / "data" / "01_raw"):
                file.write(json.dumps(record) + "\n")


def _new(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return replacing(path)


def train(family: str, texts: dict[str, list[str]], folder: Path) -> None:
    """Train a model of a family on all domains alike, and save it on the way."""
    # idle OpenMP threads that spin bring a shared machine to a standstill; read when torch is first imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    generator = random.Random(0)  # noqa: S311
    mixed = [text[:4000] for part in texts.values() for text in generator.sample(part, min(400, len(part)))]
    generator.shuffle(mixed)
    config, dtype, shard_size, vocabulary = _family(family)
    trained = train_tokenizer(mixed, vocabulary)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained.backend, eos_token=END_OF_TEXT)
    model = AutoModelForCausalLM.from_config(config)
    ids_N = torch.tensor([i for text in trained.encode(mixed) for i in [*text, trained.end_of_text_id]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    for step in tqdm(range(1, SAVED_STEPS[-1] + 1), desc=f"training {family}"):
        starts = torch.randint(0, len(ids_N) - CONTEXT, (BATCH,)).tolist()
        ids_BS = torch.stack([ids_N[start : start + CONTEXT] for start in starts])
        model(input_ids=ids_BS, labels=ids_BS).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in SAVED_STEPS:
            with replacing(folder / f"step-{step}") as path:
                # of a copy, for converting the model itself would round what training goes on with
                copy.deepcopy(model).to(dtype).save_pretrained(path, max_shard_size=shard_size)
                tokenizer.save_pretrained(path)


def _family(name: str) -> tuple[Any, "torch.dtype", str, int]:
    """Return configuration, saved type, largest file and ids of a family."""
    import torch
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig

    sizes = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 512}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    match name:
        case "llama":
            feed_forward = {"intermediate_size": 256, "num_key_value_heads": 2, "tie_word_embeddings": True}
            return LlamaConfig(vocab_size=2048, **sizes, **feed_forward, **special), torch.bfloat16, "10MB", 2048
        case "gpt2":
            sizes = {"n_embd": 96, "n_layer": 4, "n_head": 4, "n_positions": 512}
            return GPT2Config(vocab_size=3000, **sizes, **special), torch.float32, "1MB", 3000
        case _:
            # embeddings padded to a multiple of 128, as Pythia's are
            own = {"intermediate_size": 384, "tie_word_embeddings": False}
            return GPTNeoXConfig(vocab_size=2560, **sizes, **own, **special), torch.float16, "10MB", 2500


if __name__ == "__main__":
    try:
        main()
    except TikmixError as error:  # a package that cannot be fetched, a full disk
        raise SystemExit(f"Error: {error}") from None
