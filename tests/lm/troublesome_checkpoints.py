"""Checkpoints of tiny untrained models that are saved in ways that models are found in on hubs."""

import json
from pathlib import Path
from typing import Any

import torch
from lm_examples import tied_model, tiny_model
from safetensors.torch import load_file, save_file

SHARD = "60KB"
"""Small enough for several shards."""


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON object on disk."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def save_twin(folder: Path) -> Path:
    """Save in shards, and the same weights once more in one file under names of its own."""
    tiny_model().save_pretrained(folder, max_shard_size=SHARD)
    weights = {f"copy.{name}": value for shard in shards_of(folder) for name, value in load_file(shard).items()}
    save_file(weights, folder / "consolidated.safetensors")
    return folder


def save_stale(folder: Path) -> Path:
    """Save one file beside the shards of an earlier save."""
    tiny_model(seed=1).save_pretrained(folder, max_shard_size=SHARD)
    stale = {shard: shard.read_bytes() for shard in shards_of(folder)}
    (folder / "model.safetensors.index.json").unlink()
    tiny_model().save_pretrained(folder)
    for shard, content in stale.items():
        shard.write_bytes(content)
    return folder


def save_tied(folder: Path, *, equal: bool) -> Path:
    """Save a model whose configuration ties the head, with a head beside the embedding: the same, or another."""
    tied_model().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    head = embedding.clone() if equal else embedding.flip(0).contiguous()
    save_file({**weights, "lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    return folder


def save_with_adapter(folder: Path) -> Path:
    """Save a model with an adapter beside it."""
    tiny_model().save_pretrained(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}', encoding="utf-8")
    save_file({"base_model.model.lora_A.weight": torch.zeros(4, 32)}, folder / "adapter_model.safetensors")
    return folder


def save_sharded(folder: Path) -> Path:
    """Save in shards."""
    tiny_model().save_pretrained(folder, max_shard_size=SHARD)
    return folder


def shards_of(folder: Path) -> list[Path]:
    """List the shards of a folder."""
    return sorted(folder.glob("model-*.safetensors"))
