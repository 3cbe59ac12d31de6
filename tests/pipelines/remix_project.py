"""A project whose checkpoints were trained elsewhere, as a team that trains by itself has them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.pipelines.conftest import make_project, run_in

PATHS = {"code": "data/code", "prose": "data/prose", "verse": "data/verse"}
SIZES = {"code": {"tokens": 5e6}, "prose": {"bytes": 4e7}, "verse": {"tokens": 2e6}}
TOLD: dict[str, Any] = {
    "experiment": "elsewhere",
    "corpus": {"name": "sampled"},
    "model": {"checkpoint": "checkpoints/first"},
    "remix": {
        "chunk_tokens": 1_000_000,
        "consumed": 4_000_000,
        "sizes": SIZES,
    },
    "reweight": {"exports": ["megatron", "levanter"], "paths": PATHS, "batch_tokens": 8192, "context": 64},
}


def remix(project: Path, **changes: dict[str, Any]) -> None:
    told = {group: {**TOLD[group], **changes.pop(group, {})} for group in ("corpus", "model", "remix", "reweight")}
    run_in(project, "remix", **{"experiment": TOLD["experiment"], **told, **changes})


def save_checkpoint(project: Path, finished: Path, name: str, source: str, **options: Any) -> None:
    """Save a checkpoint as a team would: by save_pretrained, without a training state."""
    folder = project / "checkpoints" / name
    trained = finished / "data" / "06_models" / "one" / source
    model = AutoModelForCausalLM.from_pretrained(trained, dtype=options.pop("dtype", torch.float32))
    model.save_pretrained(folder, **options)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(trained / file, folder / file)


def make_remixed(folder: Path, finished: Path) -> Path:
    """Make a project with two checkpoints of a run elsewhere, of which the first was remixed."""
    project = make_project(folder)
    save_checkpoint(project, finished, "first", "round_0", dtype=torch.bfloat16, max_shard_size="50KB")
    save_checkpoint(project, finished, "second", "round_1")
    remix(project)
    return project


def outputs(project: Path) -> Path:
    return project / "data" / "07_model_output" / "elsewhere"


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
