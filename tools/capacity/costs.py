"""What a measurement and a sweep take, by formula: operations, and numbers moved in elementwise work.

Operations are counted as `lm.cost` counts them in a run: matrix products, attention in full, and symmetric
eigendecompositions. With n the parameters of the linear layers and the head, per token of a sequence of S positions:

| | operations |
|---|---|
| forward | 2 n + 4 S · (width of all heads) · layers |
| forward and backward | three times that |
| K-FAC's pass, without weight gradients | 4 n + 3 times the attention |
| K-FAC's covariances | 2 d² for every covariance of d x d |

An eigendecomposition of d x d takes 9 d³. Preconditioning a gradient takes 4 (o² i + o i²) per linear layer and 4 V i²
per table of V rows; a product of two gradients 2 per parameter.

Numbers that go between memory and processors in what is no matrix product (norms, activations, softmax, sums) are
counted as PyTorch runs those operations one by one: per token, a norm takes about 10 widths, rotary positions 12, a
residual sum 3, a gated activation 5 inner widths; twice that on the way back. They are small beside the matrix products
of a large model, and as large in a model of a few million parameters. A kernel that fuses several of them moves less.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.measurement import InfluenceParameters
from tikmix_pipeline.parameters.sweep import SweepParameters
from tools.capacity.shape import DecoderShape

_INFLUENCE = InfluenceParameters()
_SWEEP = SweepParameters()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A measurement of Group Influence, and a sweep by lookahead.

    Where `influence` and `sweep` have a parameter of the same meaning, its default is the default here.

    Attributes:
        domains: K.
        tasks: T.
        tokens: of each domain (`influence.tokens`).
        context: tokens per sequence of a domain (`influence.context`).
        items: of each task (`influence.items_per_task`).
        item_tokens: mean length of an item.
        factor_tokens: that the factors are fitted on (`influence.factor_tokens`).
        parts: of every domain and task (`influence.micro_batches`).
        memory_megabytes: for the rows under way in the products (`influence.memory_megabytes`).
        branches: candidates of the sweep (`sweep.candidates`).
        branch_tokens: training tokens of each (`sweep.branch_tokens`).
        branch_context: tokens per sequence in training (`train.context`).
        scored_items: of each task, that a branch is scored on (`sweep.items`).
        pass_tokens: that pass through a device at once in a measurement; all of their activations are kept.
        batch_tokens: that pass through a device at once in a branch.
        checkpointing: activations of a branch are computed again on the way back, instead of kept.
    """

    domains: int = 26
    tasks: int = 9
    tokens: int = _INFLUENCE.tokens if isinstance(_INFLUENCE.tokens, int) else _INFLUENCE.max_tokens
    context: int = _INFLUENCE.context or 32
    items: int = _INFLUENCE.items_per_task or 96
    item_tokens: int = 64
    factor_tokens: int = _INFLUENCE.factor_tokens
    parts: int = _INFLUENCE.micro_batches
    memory_megabytes: float = _INFLUENCE.memory_megabytes
    branches: int = _SWEEP.candidates
    branch_tokens: int = _SWEEP.branch_tokens or 81_920
    branch_context: int = 2048
    scored_items: int = _SWEEP.items or 400
    pass_tokens: int = 4_096
    batch_tokens: int = 8_192
    checkpointing: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < (0 if field.name in ("branches", "checkpointing") else 1):
                raise TikmixError(f"--{field.name.replace('_', '-')} ({value}) must be at least 1.")

    @property
    def rows(self) -> tuple[int, int]:
        """Gradient chunks of all tasks, and of all domains."""
        return self.tasks * self.parts, self.domains * self.parts


# operations

_EIGENDECOMPOSITION = 9


_STRIP_ROWS, _MOST_STRIPS = 96, 8
"""As in `influence.curvature.kfac`."""


def forward_flops(shape: DecoderShape, context: int) -> float:
    """Return the operations of one token's forward pass in a sequence of `context` positions."""
    return 2.0 * _weights(shape) + _attention(shape, context)


def training_flops(shape: DecoderShape, context: int) -> float:
    """Return the operations of one token's pass forward and back, to the gradients of all parameters."""
    return 3 * forward_flops(shape, context)


def factor_pass_flops(shape: DecoderShape, context: int) -> float:
    """Return the operations of one token's pass forward, and back to the activations alone."""
    return 4.0 * _weights(shape) + 3 * _attention(shape, context)


def covariance_flops(shape: DecoderShape) -> float:
    """Return the operations of adding one token to the lower triangles of all covariances of K-FAC, by strips."""
    strips = {size: max(1, min(_MOST_STRIPS, size // _STRIP_ROWS)) for size in covariance_sizes(shape)}
    return sum(size**2 * (1 + 1 / strips[size]) for size in covariance_sizes(shape))


def eigendecomposition_flops(shape: DecoderShape) -> float:
    """Return the operations of decomposing all covariances."""
    return sum(decomposition_flops(size) for size in decomposed_sizes(shape))


def decomposition_flops(size: int) -> float:
    """Return the operations of decomposing one covariance of `size` x `size`."""
    return float(_EIGENDECOMPOSITION * size**3)


def precondition_flops(shape: DecoderShape) -> float:
    """Return the operations of multiplying one gradient with the damped inverse of K-FAC."""
    linear = sum(
        4.0 * matrix.outputs * matrix.columns * (matrix.outputs + matrix.columns) for matrix in shape.matrices()
    )
    return shape.layers * linear + sum(4.0 * rows * shape.width**2 for rows in shape.tables())


def dot_flops(shape: DecoderShape) -> float:
    """Return the operations of multiplying one gradient with another."""
    return 2.0 * shape.parameters


def covariance_sizes(shape: DecoderShape) -> Iterator[int]:
    """Yield the size of every covariance: of outputs, of inputs, and on the inner side of embeddings and head."""
    for _ in range(shape.layers):
        for matrix in shape.matrices():
            yield matrix.outputs
            if matrix.is_first_reader:
                yield matrix.columns
    # a tied weight has one covariance as an embedding and another as a head
    yield from [shape.width] * (len(shape.tables()) + shape.tied)


def decomposed_sizes(shape: DecoderShape) -> Iterator[int]:
    """Yield the size of every covariance that is decomposed; the two of a tied weight are merged before."""
    sizes = list(covariance_sizes(shape))
    yield from sizes[: len(sizes) - shape.tied]


def _weights(shape: DecoderShape) -> int:
    """Return the weights that a token is multiplied with."""
    linear = sum(matrix.inputs * matrix.outputs for matrix in shape.matrices())
    return shape.layers * linear + shape.vocabulary * shape.width


def _attention(shape: DecoderShape, context: int) -> float:
    return 4.0 * context * shape.attention_width * shape.layers


# numbers moved

_WIDTHS, _INNER = 38, 5
"""Widths and inner widths that a block moves on the way forward."""
_BACK = 3
"""What forward and back move together, over what forward moves."""
_LOSS = 12
"""Times the vocabulary: softmax, the loss and its gradient."""
_SAMPLED_LOSS = 24
"""Times the vocabulary: the same, and a sampled label, the squares of the gradient, and rows that are picked out."""
_NORMS = 20
"""Times a block's width: the gradients of norms by sequence."""
_PICKED = 2
"""Times inputs and gradients: rows that carry loss are picked out of them."""


def forward_traffic(shape: DecoderShape) -> float:
    """Return the numbers per token of a forward pass and its loss."""
    return float(_block_traffic(shape) + _LOSS / _BACK * shape.vocabulary)


def training_traffic(shape: DecoderShape) -> float:
    """Return the numbers per token of a pass forward and back."""
    return float(_BACK * _block_traffic(shape) + _LOSS * shape.vocabulary)


def factor_traffic(shape: DecoderShape) -> float:
    """Return the numbers per token of K-FAC's pass."""
    picked = _PICKED * sum(covariance_sizes(shape)) + _NORMS * shape.layers * shape.width
    return float(_BACK * _block_traffic(shape) + _SAMPLED_LOSS * shape.vocabulary + picked)


def _block_traffic(shape: DecoderShape) -> int:
    return shape.layers * (_WIDTHS * shape.width + _INNER * shape.feed_forward)
