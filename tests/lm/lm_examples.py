"""Small models, parameters and states for the tests of this room."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_model
from tikmix_pipeline.lm.model import build_model
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState
from tikmix_pipeline.parameters import ModelParameters, TrainParameters

MODEL = ModelParameters(preset="llama-tiny")
FIRST = {"code": 0.5, "prose": 0.3, "verse": 0.2}
SECOND = {"code": 0.1, "prose": 0.15, "verse": 0.75}


def train_parameters(**changes: Any) -> TrainParameters:
    """Chunks of 6 steps of 4 x 16 tokens: 2 steps of warm-up, 4 of decay."""
    values = {
        "chunk_tokens": 384,
        "batch_size": 4,
        "context": 16,
        "warmup_tokens": 128,
        "decay_tokens": 256,
        "save_every_steps": 2,
        "device": "cpu",
    }
    return TrainParameters.model_validate(values | changes)


def tiny_model(vocabulary_size: int = 320, *, seed: int = 0) -> PreTrainedModel:
    return build_model(MODEL, vocabulary_size=vocabulary_size, context=16, seed=seed)


def tied_model(vocabulary_size: int = 320) -> PreTrainedModel:
    """A model that shares its embedding with its head, as the larger presets do."""
    config = tiny_model(vocabulary_size).config
    config.tie_word_embeddings = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


class CappedModel(nn.Module):
    """A model that caps its logits behind the head, as Gemma 2 does, so that its head cannot be taken by itself."""

    def __init__(self, inner: PreTrainedModel) -> None:
        super().__init__()
        self.inner = inner

    def get_output_embeddings(self) -> nn.Module:
        return self.inner.lm_head

    def forward(self, **inputs):
        output = self.inner(**inputs)
        output.logits = 5 * torch.tanh(output.logits / 5)
        return output


def gpt2_model(vocabulary_size: int = 320, *, context: int = 16, dropout: float = 0.1) -> PreTrainedModel:
    """Another family, with dropout, biases, tied embeddings and learned positions."""
    config = GPT2Config(
        vocab_size=vocabulary_size,
        n_positions=context,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        attn_pdrop=dropout,
        embd_pdrop=dropout,
        resid_pdrop=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(config)


def initial_checkpoint(shards: TokenShards, folder: Path, *, seed: int = 0) -> Checkpoint:
    return save_model(tiny_model(shards.vocabulary_size, seed=seed), folder, shards.tokenizer_folder)


def new_state(
    shards: TokenShards, train: TrainParameters, *, model: PreTrainedModel | None = None, seed: int = 0
) -> TrainingState:
    """A state in memory, nothing trained yet."""
    network = model or tiny_model(shards.vocabulary_size, seed=seed)
    domains = {domain: shards.windows(domain, train.context) for domain in shards.domains}
    stream = MixtureStream(domains, FIRST, batch_size=train.batch_size, seed=seed)
    return TrainingState(network, NamedOptimizer(network, train), stream, seed)


def constant_schedule(steps: int) -> Schedule:
    return Schedule(chunk_steps=steps, total_steps=steps, warmup_steps=0, decay_steps=0, final_fraction=1.0)


def all_tensors(state: TrainingState) -> dict[str, torch.Tensor]:
    """Weights and optimiser state, copied."""
    tensors = {**state.model.state_dict(), **state.optimizer.state_tensors()}
    return {name: value.clone() for name, value in tensors.items()}


def differing(a: TrainingState, b: TrainingState) -> list[str]:
    """Name everything in which two states are not the same bits."""
    one, other = all_tensors(a), all_tensors(b)
    names = [name for name in one.keys() | other.keys() if name not in one or name not in other]
    names += [name for name in one.keys() & other.keys() if not torch.equal(one[name], other[name])]
    names += ["stream"] if a.stream.state_dict() != b.stream.state_dict() else []
    names += ["step"] if a.step != b.step else []
    names += ["records"] if a.records != b.records else []
    return sorted(names)
