"""Slow and exact: curvature as one dense float64 matrix over all parameters, from per-position loops.

Nothing here is shared with the code under test but the definition of a sampled label.
"""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config
from transformers.pytorch_utils import Conv1D

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.curvature.head_batch import draw_uniform, sample_labels
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.parameters import TrainParameters

VOCABULARY = 11


def tiny_model(kind: str, *, tied: bool = False, seed: int = 0, exact_norms: bool = True) -> nn.Module:
    """A one-layer model of width 8 in float64; its weights are large enough for every gradient to matter."""
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": tied}
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    shape |= {"vocab_size": VOCABULARY, "max_position_embeddings": 16} | ids
    gpt2 = {"vocab_size": VOCABULARY, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16} | ids
    configs = {
        "llama": lambda: LlamaConfig(num_key_value_heads=1, **shape),
        "qwen2": lambda: Qwen2Config(num_key_value_heads=1, **shape),
        "gpt_neox": lambda: GPTNeoXConfig(rotary_pct=0.5, hidden_dropout=0.1, **shape),
        "gpt2": lambda: GPT2Config(**gpt2),
    }
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(configs[kind]()).double()
    if exact_norms:
        _use_float64_norms(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def _use_float64_norms(model: nn.Module) -> None:
    """Replace the RMS norms of transformers, which compute in float32 whatever the weights are."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon).double())


class ToyLM(nn.Module):
    """An embedding, whatever stands in the middle, and a linear map to logits, scaled afterwards."""

    def __init__(self, middle: nn.Module, *, names_head: bool = True, logit_scale: float = 1.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 4)
        self.middle = middle
        self.out = nn.Linear(4, VOCABULARY)
        self._names_head = names_head
        self._logit_scale = logit_scale

    def get_output_embeddings(self) -> nn.Module | None:
        return self.out if self._names_head else None

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        logits = self.out(self.middle(self.embedding(input_ids)))
        return SimpleNamespace(logits=logits if self._logit_scale == 1 else logits * self._logit_scale)


def random_batches(seed: int, batches: int = 2, sequences: int = 3, tokens: int = 7, loss: str = "some"):
    """Random tokens; `some` puts loss on a random half of them and ends every sequence with padding."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(batches):
        batch = TokenBatch.of_windows(rng.integers(0, VOCABULARY, (sequences, tokens)))
        if loss == "some":
            carries = rng.random(batch.loss_BS.shape) < 0.5
            carries[:, [0, -1]], carries[:, 2] = False, True
            batch = TokenBatch(batch.tokens_BS, carries)
        result.append(batch)
    return result


def mean_gradient_vector(model: nn.Module, batches: list[TokenBatch]) -> np.ndarray:
    """The mean gradient from one backward pass per token, concatenated in the order of `named_parameters()`."""
    parameters = list(model.parameters())
    total, count = np.zeros(sum(p.numel() for p in parameters)), 0
    for batch in batches:
        for tokens, carries in zip(batch.tokens_BS, batch.loss_BS, strict=True):
            ids = torch.tensor(tokens)[None]
            for position in np.flatnonzero(carries):
                logits = model(input_ids=ids[:, :position], use_cache=False).logits[0, -1]
                gradients = torch.autograd.grad(F.cross_entropy(logits, ids[0, position]), parameters)
                total += torch.cat([g.flatten() for g in gradients]).numpy()
                count += 1
    return total / count


def random_gradient(model: nn.Module, seed: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in model.named_parameters()}


def train_steps(model: torch.nn.Module, train: TrainParameters, steps: int) -> NamedOptimizer:
    """Train on random batches, for the sake of the optimiser's state."""
    optimizer = NamedOptimizer(model, train)
    for step in range(steps):
        gradient = mean_gradient(model, random_batches(step), of="batch").gradient
        for name, parameter in model.named_parameters():
            parameter.grad = gradient[name]
        optimizer.step(1.0)
    return optimizer


def flatten(gradient: dict[str, torch.Tensor]) -> np.ndarray:
    return torch.cat([values.flatten() for values in gradient.values()]).numpy()


@dataclass
class Position:
    """One loss-carrying position: what each layer saw there, and the gradient of the loss by its output."""

    inputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    probability: np.ndarray
    label: int


@dataclass
class Sequence:
    """One sequence: its positions, its summed gradient by parameter, and the tokens before its last loss."""

    positions: list[Position]
    gradient: dict[str, np.ndarray]
    read: list[int]


@dataclass
class Replay:
    """All sequences of a fit, run one at a time with the labels of the fit."""

    model: nn.Module
    sequences: list[Sequence]
    fisher: str

    @property
    def positions(self) -> list[Position]:
        return [position for sequence in self.sequences for position in sequence.positions]

    def squares(self, name: str) -> np.ndarray:
        """Squared gradients of single sequences, per loss-carrying token."""
        return sum(sequence.gradient[name] ** 2 for sequence in self.sequences) / len(self.positions)


def replay(model: nn.Module, batches: list[TokenBatch], seed: int, fisher: str = "true") -> Replay:
    """Run one sequence at a time, with sampled labels or those of the text."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D, nn.Embedding)):
            module.register_forward_hook(_remember(seen, name))
    sequences = []
    for batch in batches:
        for tokens, carries in zip(batch.tokens_BS, batch.loss_BS, strict=True):
            model.zero_grad()
            logits = model(input_ids=torch.tensor(tokens)[None, :-1], use_cache=False).logits[0]
            where = np.flatnonzero(carries[1:])
            probability = logits[where].softmax(-1).detach()
            uniform = draw_uniform(len(where), generator)
            labels = sample_labels(probability, uniform) if fisher == "true" else torch.tensor(tokens[1:][where])
            F.cross_entropy(logits[where], labels, reduction="sum").backward()
            gradient = {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}
            positions = []
            for row, p in enumerate(where):
                inputs = {name: i[0, p].detach().numpy() for name, (i, _) in seen.items()}
                gradients = {name: o.grad[0, p].numpy() for name, (_, o) in seen.items()}
                positions.append(Position(inputs, gradients, probability[row].numpy(), int(labels[row])))
            sequences.append(Sequence(positions, gradient, sorted(set(tokens[: where.max() + 1].tolist()))))
    return Replay(model, sequences, fisher)


def _remember(seen, name):
    def hook(_module, args, output):
        output.retain_grad()
        seen[name] = args[0], output

    return hook


Blocks = list[tuple[np.ndarray, np.ndarray]]
"""Of each block of C its indices in the order of `named_parameters()`, and its matrix."""


def dense_blocks(model: nn.Module, batches: list[TokenBatch], *, kind: str, seed: int, fisher: str = "true") -> Blocks:
    """Every block of `kfac` or `diagonal` as a matrix."""
    replayed = replay(model, batches, seed, fisher)
    index = _indices(model)
    if kind == "diagonal":
        return [(index[name].flatten(), np.diag(d.flatten())) for name, d in fisher_diagonal(replayed).items()]
    blocks = []
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    names = {id(p): n for n, p in model.named_parameters()}
    for name, module in model.named_modules():
        own = {key: index[names[id(p)]] for key, p in module.named_parameters(recurse=False)}
        if name == "lm_head":
            if not tied:
                blocks.append((own["weight"].flatten(), head_block(replayed, name)))
        elif isinstance(module, nn.Embedding):
            block = embedding_block(replayed, name, module.num_embeddings)
            if tied and module is model.get_input_embeddings():
                block = _nearest_kronecker(block + head_block(replayed, "lm_head"), module.num_embeddings)
            blocks.append((own["weight"].flatten(), block))
        elif isinstance(module, (nn.Linear, Conv1D)):
            weight = own["weight"].T if isinstance(module, Conv1D) else own["weight"]
            where = weight if module.bias is None else np.concatenate([weight, own["bias"][:, None]], axis=1)
            blocks.append((where.flatten(), linear_block(replayed, name, bias=module.bias is not None)))
        elif own:
            blocks += [(where, np.diag(replayed.squares(f"{name}.{key}"))) for key, where in own.items()]
    return blocks


def apply_function(blocks: Blocks, function, vector: np.ndarray) -> np.ndarray:
    """Return f(C) times a vector over all parameters, `function` taking the eigenvalues of a block and their mean."""
    result = np.zeros_like(vector)
    for where, block in blocks:
        values, vectors = np.linalg.eigh(block)
        values = values.clip(min=0)
        result[where] = vectors @ (function(values, values.mean()) * (vectors.T @ vector[where]))
    return result


def dense_kfac(model: nn.Module, batches: list[TokenBatch], seed: int, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """The whole-model block matrix C and the diagonal of a relative λ, both in the order of `named_parameters()`."""
    size = sum(p.numel() for p in model.parameters())
    curvature, dampings = np.zeros((size, size)), np.zeros(size)
    for where, block in dense_blocks(model, batches, kind="kfac", seed=seed):
        curvature[np.ix_(where, where)] = block
        dampings[where] = damping * np.trace(block) / len(block)
    return curvature, dampings


def linear_block(replayed: Replay, name: str, *, bias: bool) -> np.ndarray:
    positions = replayed.positions
    inputs = [np.append(p.inputs[name], 1.0) if bias else p.inputs[name] for p in positions]
    a = sum(np.outer(i, i) for i in inputs) / len(positions)
    g = sum(np.outer(p.gradients[name], p.gradients[name]) for p in positions) / len(positions)
    return np.kron(g, a)


def embedding_block(replayed: Replay, name: str, rows: int) -> np.ndarray:
    positions = replayed.positions
    one_hot = [np.eye(rows)[p.inputs[name]] for p in positions]
    a = sum(np.outer(i, i) for i in one_hot) / len(positions)
    g = sum(np.outer(p.gradients[name], p.gradients[name]) for p in positions) / len(positions)
    return np.kron(a, g)


def head_block(replayed: Replay, name: str) -> np.ndarray:
    positions = replayed.positions
    a = sum(np.outer(p.inputs[name], p.inputs[name]) for p in positions) / len(positions)
    return np.kron(np.diag(sum(np.diag(score_moment(p, replayed.fisher)) for p in positions) / len(positions)), a)


def score_moment(position: Position, fisher: str) -> np.ndarray:
    """Second moment of the gradient by the logits: over all labels, or at the label of the text."""
    p = position.probability
    if fisher == "true":
        return np.diag(p) - np.outer(p, p)
    score = p - np.eye(len(p))[position.label]
    return np.outer(score, score)


def fisher_diagonal(replayed: Replay, rotation: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """By parameter: squared gradients of sequences per token, and where only the head matters its exact expectation.

    Args:
        rotation: applied to the width of embedding and head before squaring.
    """
    model = replayed.model
    result = {name: replayed.squares(name) for name, _ in model.named_parameters()}
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rotation = np.eye(embedding.shape[1]) if rotation is None else rotation
    layer = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    total = {id(weight): np.zeros(weight.shape) for weight in (embedding, head)}
    for sequence in replayed.sequences:
        for weight in {id(embedding): embedding, id(head): head}.values():
            squares = (sequence.gradient[names[id(weight)]] @ rotation) ** 2
            if weight is head and replayed.fisher == "true":
                exact = sum(
                    np.outer(np.diag(score_moment(p, "true")), (p.inputs[layer] @ rotation) ** 2)
                    for p in sequence.positions
                )
                sampled = sequence.read if head is embedding else []
                exact[sampled] = squares[sampled]
                squares = exact
            total[id(weight)] += squares
    return result | {names[key]: values / len(replayed.positions) for key, values in total.items()}


def sampled_fisher(replayed: Replay, weight: str, bias: str | None = None, *, transposed: bool = False) -> np.ndarray:
    """(1/N) Σ_b u_b u_bᵀ of a layer, over the row-major entries of its matrix with the bias as last column."""
    block: np.ndarray | float = 0.0
    for sequence in replayed.sequences:
        matrix = sequence.gradient[weight].T if transposed else sequence.gradient[weight]
        if bias is not None:
            matrix = np.concatenate([matrix, sequence.gradient[bias][:, None]], axis=1)
        block = block + np.outer(matrix.flatten(), matrix.flatten())
    return block / len(replayed.positions)


def _nearest_kronecker(block: np.ndarray, rows: int) -> np.ndarray:
    """Van Loan and Pitsianis: rearrange, take the leading singular pair, rearrange back."""
    n = len(block) // rows
    rearranged = block.reshape(rows, n, rows, n).transpose(0, 2, 1, 3).reshape(rows * rows, n * n)
    u, s, v = np.linalg.svd(rearranged, full_matrices=False)
    return s[0] * np.kron(u[:, 0].reshape(rows, rows), v[0].reshape(n, n))


def _indices(model: nn.Module) -> dict[str, np.ndarray]:
    start, result = 0, {}
    for name, parameter in model.named_parameters():
        result[name] = np.arange(start, start + parameter.numel()).reshape(parameter.shape)
        start += parameter.numel()
    return result
