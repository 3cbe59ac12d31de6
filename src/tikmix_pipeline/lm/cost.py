"""What a computation costs: the tokens that pass through a model, and floating-point operations.

Operations are counted as PyTorch dispatches them: matrix products and attention, as in every published figure, and
symmetric eigendecompositions, which PyTorch does not count. What is elementwise is left out, and so is what a fused
attention does again on its way back: the count is the same for every kernel and on every device. Attention counts in
full, also where a causal kernel skips half of it.

Counting takes some 10 µs per operation, which a small model would notice. So what is done many times is counted once
per shape of a batch (`ShapeCounter`), or for sequences of two lengths (`SequenceFlops`): a transformer's operations are
a linear and a quadratic term in the length, and those of a batch are those of its sequences.

Axes: B sequences, S tokens of a sequence, P = S - 1 positions that pass through the model.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.lm.loss import device_of, next_token_logits

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_EIGENDECOMPOSITION = 9
"""Operations of a symmetric eigendecomposition with vectors, in units of n³ (Golub and Van Loan, 8.3)."""

_ATTENTION = ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu")


def tokens_read(batch: TokenBatch) -> int:
    """Return the tokens that pass through the model for a batch: padding, and what predicts nothing, left out."""
    length = batch.loss_BS.shape[1]
    last_B = length - 1 - batch.loss_BS[:, ::-1].argmax(axis=1)
    return int(last_B[batch.loss_BS.any(axis=1)].sum())


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the operations of a `with` block in `flops`; those of a block inside it too."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # else the first count imports the compiler, which takes seconds and is of no use here
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0
        self._formulas = _formulas()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        formula = self._formulas.get(getattr(func, "_overloadpacket", None))
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


@lru_cache(maxsize=1)
def _formulas() -> Mapping[Any, Callable[..., float]]:
    """Return the operations of every operator that counts, from its arguments."""
    # registers the operator of a head in chunks, which PyTorch else does when it is first called
    import torch.nn.modules.linear_cross_entropy

    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., float]] = {**flop_registry, aten._linalg_eigh: _eigendecomposition}
    formulas[torch.ops.torch_nn._linear_cross_entropy_batch_chunked] = _chunked_head
    # as in the registry, which takes several times as long over the shapes
    formulas |= dict.fromkeys((aten.mm, aten.bmm), _product) | dict.fromkeys(
        (aten.addmm, aten.addmm_, aten.baddbmm), _added_product
    )
    for kernel in _ATTENTION:
        formulas[getattr(aten, f"_scaled_dot_product_{kernel}")] = _attention
        formulas[getattr(aten, f"_scaled_dot_product_{kernel}_backward")] = _attention_backward
    return formulas


def _product(left: Tensor, _right: Tensor, *_: Any, out_val: Tensor, **__: Any) -> float:
    return 2 * out_val.numel() * left.shape[-1]


def _added_product(_added: Tensor, left: Tensor, right: Tensor, *_: Any, out_val: Tensor, **__: Any) -> float:
    return _product(left, right, out_val=out_val)


def _eigendecomposition(matrices: Tensor, *_: Any, **__: Any) -> float:
    return matrices.shape[:-2].numel() * _EIGENDECOMPOSITION * matrices.shape[-1] ** 3


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> float:
    return float(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _attention_backward(_gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> float:
    return 2 * _attention(query, key, value)


def _chunked_head(rows: Tensor, weight: Tensor, *others: Any, out_val: Any) -> float:
    """Count the products of a head taken in chunks of tokens: forward, and back to its inputs and its weight."""
    del out_val
    products = 1 + int(others[-3]) + int(others[-2])
    return 2 * products * rows.numel() * weight.shape[0]


@dataclass
class ShapeCounter:
    """Operations of passes over batches, counted for the first batch of a shape and taken from there for the rest."""

    cost: Cost = NO_COST
    """Of all batches so far."""
    flops_by_shape: dict[str, float] = field(default_factory=dict)
    """Of one batch, by its sequences, tokens and loss-carrying tokens."""

    @contextmanager
    def batch(self, batch: TokenBatch) -> Iterator[None]:
        """Add the cost of what the block does with a batch."""
        shape = "x".join(map(str, (*batch.tokens_BS.shape, batch.loss_tokens)))
        if shape in self.flops_by_shape:
            yield
        else:
            with FlopCounter() as counter:
                yield
            self.flops_by_shape[shape] = counter.flops
        self.cost += Cost(tokens_read(batch), self.flops_by_shape[shape])

    @classmethod
    def of_dict(cls, content: Mapping[str, Any]) -> "ShapeCounter":
        """Read what `dataclasses.asdict` returned."""
        return cls(Cost(**content["cost"]), dict(content["flops_by_shape"]))


@dataclass(frozen=True)
class SequenceFlops:
    """Operations of passes over sequences, by their length."""

    per_token: Fraction
    """Of a token, whatever the sequence."""
    per_pair: Fraction
    """Of a token with each of the sequence's."""

    @classmethod
    def of(cls, model: nn.Module, longest: int, *, training: bool, mesh: Mesh = SINGLE_MESH) -> "SequenceFlops":
        """Count one sequence of `longest` positions and one of half as many.

        The model is in evaluation mode, on the device to work on, and left as it was. With `training` it is a pass
        forward and one back to all trainable parameters, instead of one forward.
        """
        shorter = max(1, longest // 2)
        back = mesh.gradients if training else None
        short, long = (Fraction(_count_sequence(model, length, back), length) for length in (shorter, longest))
        per_pair = (long - short) / (longest - shorter) if longest > shorter else Fraction(0)
        return cls(long - per_pair * longest, per_pair)

    def cost(self, batches: Iterable[TokenBatch]) -> Cost:
        """Return the cost of a pass over each batch; operations are those of the padding too."""
        total = NO_COST
        for batch in batches:
            sequences, length = batch.tokens_BS.shape
            total += Cost(tokens_read(batch), self._flops(sequences, length - 1))
        return total

    def of_windows(self, windows: int, context: int) -> Cost:
        """Return the cost of a pass over so many sequences of `context` positions."""
        return Cost(windows * context, self._flops(windows, context))

    def _flops(self, sequences: int, positions: int) -> float:
        return float(round(sequences * positions * (self.per_token + self.per_pair * positions)))


def _count_sequence(model: nn.Module, positions: int, back: Callable[..., object] | None) -> int:
    tokens_BS = torch.zeros(1, positions + 1, dtype=torch.long, device=device_of(model))
    # before the pass, since between forward and backward a model in shards names others
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with FlopCounter() as counter, torch.set_grad_enabled(back is not None):
        logits_BPV = next_token_logits(model, tokens_BS)
        if back is not None:
            back(logits_BPV.sum(), trainable)
    return int(counter.flops)


def training_cost(config: "PretrainedConfig", *, context: int, tokens: int) -> Cost:
    """Return the cost of training on `tokens` tokens in sequences of `context`: a pass forward and one back."""
    return Cost(tokens, tokens * _flops_per_token(config.to_json_string(), context, training=True))


def scoring_cost(config: "PretrainedConfig", *, context: int, tokens: int) -> Cost:
    """Return the cost of one pass forward over `tokens` tokens in sequences of `context`."""
    return Cost(tokens, tokens * _flops_per_token(config.to_json_string(), context, training=False))


@lru_cache(maxsize=64)
def _flops_per_token(config: str, context: int, *, training: bool) -> float:
    from transformers import AutoConfig, AutoModelForCausalLM

    values = json.loads(config)
    with torch.device("meta"):
        # attention written out: a fused kernel has no operations on a device without storage
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), attn_implementation="eager")
        tokens_BS = torch.zeros(1, context, dtype=torch.long)
    with FlopCounter() as counter, torch.set_grad_enabled(training):
        # with a mask of its own transformers does not look into the positions, which have no values here
        logits = model(input_ids=tokens_BS, attention_mask=torch.ones_like(tokens_BS), use_cache=False).logits
        if training:
            logits.sum().backward()
    return float(counter.flops / context)
