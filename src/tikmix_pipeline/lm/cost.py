"""What a computation costs: the tokens that pass through a model, and floating-point operations.

Operations are counted by PyTorch as they are dispatched (matrix products and attention; what is elementwise is left
out, as in every published figure), plus symmetric eigendecompositions, which PyTorch does not count. Training costs the
same for every token, so that one pass over a model without storage is enough to know it.

Axes: B sequences, S positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_EIGENDECOMPOSITION = 9
"""Operations of a symmetric eigendecomposition with vectors, in units of n³ (Golub and Van Loan, 8.3)."""


@dataclass(frozen=True)
class Cost:
    """Tokens passed through a model, once each whether a pass goes forward only or back as well; and operations."""

    tokens: int = 0
    flops: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.flops + other.flops)

    def to_dict(self) -> dict[str, float]:
        """Return plain values for JSON."""
        return asdict(self)


class Counter:
    """The operations that were executed inside a `counting` block; complete once the block has ended."""

    flops: float = 0.0


@contextmanager
def counting() -> Iterator[Counter]:
    """Count the operations of the block."""
    counter = Counter()
    mode = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._linalg_eigh: _eigendecomposition})
    try:
        with mode:
            yield counter
    finally:
        counter.flops = float(mode.get_total_flops())


def _eigendecomposition(shape: tuple[int, ...], *_: Any, **__: Any) -> int:
    return torch.Size(shape[:-2]).numel() * _EIGENDECOMPOSITION * shape[-1] ** 3


def training_cost(config: "PretrainedConfig", *, context: int, tokens: int) -> Cost:
    """Return the cost of training on `tokens` tokens in sequences of `context`: a pass forward and one back.

    Args:
        config: the model's.
    """
    return Cost(tokens, tokens * _flops_per_token(config.to_json_string(), context, training=True))


def scoring_cost(config: "PretrainedConfig", *, context: int, tokens: int) -> Cost:
    """Return the cost of one pass forward over `tokens` tokens in sequences of `context`."""
    return Cost(tokens, tokens * _flops_per_token(config.to_json_string(), context, training=False))


@lru_cache(maxsize=64)
def _flops_per_token(config: str, context: int, *, training: bool) -> float:
    import json

    from transformers import AutoConfig, AutoModelForCausalLM

    values = json.loads(config)
    with torch.device("meta"):
        # attention written out: a fused kernel has no operations on a device without storage
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), attn_implementation="eager")
        tokens_BS = torch.zeros(1, context, dtype=torch.long)
    with counting() as counter, torch.set_grad_enabled(training):
        # with a mask of its own transformers does not look into the positions, which have no values here
        logits = model(input_ids=tokens_BS, attention_mask=torch.ones_like(tokens_BS), use_cache=False).logits
        if training:
            logits.sum().backward()
    return counter.flops / context
