"""The model and the data of the influence benchmark, in plain PyTorch, which both environments import.

A small transformer in the manner of GPT-2 without biases in its linear layers, trained for a few steps on domains that
are bigram chains: P = m·own + (1 − m)·shared, with m rising over the domains and over the tasks, so that the first
domain is nearest to all tasks.

Axes: B sequences, P positions, S = P + 1 tokens of a sequence, V vocabulary, w width, N sequences of a set.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LAYERS, WIDTH, HEADS, VOCABULARY, LENGTH = 4, 128, 4, 512, 128
DOMAINS = {f"domain_{number}": 64 for number in range(6)}
TASKS = {f"task_{number}": 32 for number in range(4)}
TRAINING_STEPS, TRAINING_BATCH, LEARNING_RATE = 60, 32, 1e-3

Sets = dict[str, Tensor]


class Output(NamedTuple):
    """What a language model returns."""

    logits: Tensor


class Block(nn.Module):
    """Attention and a perceptron, each on the normalised residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.fc = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.out = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, stream_BPw: Tensor) -> Tensor:
        """Return the residual stream after the block."""
        heads = [
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in self.qkv(self.norm_attention(stream_BPw)).chunk(3, dim=-1)
        ]
        mixed_BPw = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(-2)
        stream_BPw = stream_BPw + self.proj(mixed_BPw)
        return stream_BPw + self.out(F.gelu(self.fc(self.norm_perceptron(stream_BPw))))


class LanguageModel(nn.Module):
    """The benchmark's model: learned positions, untied head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02, generator=generator)

    def get_output_embeddings(self) -> nn.Linear:
        """Name the head, as models of `transformers` do."""
        return self.head

    def forward(self, input_ids: Tensor, *, use_cache: bool = False) -> Output:
        """Return the logits (B, P, V)."""
        assert not use_cache
        positions_P = torch.arange(input_ids.shape[1], device=input_ids.device)
        stream_BPw = self.blocks(self.tokens(input_ids) + self.positions(positions_P))
        return Output(self.head(self.norm(stream_BPw)))


def summed_loss(model: nn.Module, tokens_BS: Tensor, labels_N: Tensor | None = None) -> Tensor:
    """Return the summed cross-entropy of the next tokens, or of other labels (B·P)."""
    logits_NV = model(input_ids=tokens_BS[:, :-1], use_cache=False).logits.flatten(0, 1)
    labels_N = tokens_BS[:, 1:].flatten() if labels_N is None else labels_N
    return F.cross_entropy(logits_NV, labels_N, reduction="sum")


def sample_sets(seed: int = 1) -> tuple[Sets, Sets]:
    """Draw the sequences (N, S) of the domains and of the tasks."""
    generator = torch.Generator().manual_seed(seed)
    shared_VV = _chain(2.0, generator)
    sides = []
    for sizes in (DOMAINS, TASKS):
        sets = {}
        for number, (name, sequences) in enumerate(sizes.items()):
            share = number / len(sizes)
            own_VV = _chain(3.0, generator)
            sets[name] = _walk(share * own_VV + (1 - share) * shared_VV, sequences, generator)
        sides.append(sets)
    return sides[0], sides[1]


def _chain(sharpness: float, generator: torch.Generator) -> Tensor:
    return (sharpness * torch.randn(VOCABULARY, VOCABULARY, generator=generator)).softmax(dim=1)


def _walk(chain_VV: Tensor, sequences: int, generator: torch.Generator) -> Tensor:
    columns = [torch.randint(0, VOCABULARY, (sequences,), generator=generator)]
    for _ in range(LENGTH):
        columns.append(torch.multinomial(chain_VV[columns[-1]], 1, generator=generator)[:, 0])
    return torch.stack(columns, dim=1)


def train(model: nn.Module, pool_NS: Tensor, seed: int = 0) -> torch.optim.AdamW:
    """Train on random batches of the pool; return the optimiser, for its moments."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(TRAINING_STEPS):
        batch_BS = pool_NS[torch.randint(0, len(pool_NS), (TRAINING_BATCH,), generator=generator)]
        (summed_loss(model, batch_BS) / batch_BS[:, 1:].numel()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return optimizer


def save_experiment(folder: Path) -> None:
    """Draw the sets, train the model, and write both with the optimiser's state, as `<parameter>/<entry>`."""
    domains, tasks = sample_sets()
    model = LanguageModel()
    optimizer = train(model, torch.cat(list(domains.values())))
    save_file(domains, folder / "domains.safetensors")
    save_file(tasks, folder / "tasks.safetensors")
    save_file(model.state_dict(), folder / "model.safetensors")
    state: Mapping[str, Tensor] = {
        f"{name}/{entry}": value
        for name, parameter in model.named_parameters()
        for entry, value in optimizer.state[parameter].items()
    }
    save_file(dict(state), folder / "optimizer.safetensors")


def load_model(folder: Path) -> LanguageModel:
    """Load the trained model."""
    model = LanguageModel()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def load_sets(folder: Path) -> tuple[Sets, Sets]:
    """Load the sequences (N, S) of the domains and of the tasks, in the order of their names."""
    domains, tasks = (load_file(folder / f"{side}.safetensors") for side in ("domains", "tasks"))
    return {name: domains[name] for name in DOMAINS}, {name: tasks[name] for name in TASKS}


def warm_up(model: nn.Module, tokens_BS: Tensor) -> None:
    """Start the threads and fill the caches of PyTorch before anything is timed."""
    for _ in range(2):
        summed_loss(model, tokens_BS).backward()
    model.zero_grad(set_to_none=True)
