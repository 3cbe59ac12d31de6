"""Numbers that go between memory and processors in what is no matrix product: norms, activations, softmax, sums.

Counts of the operations that PyTorch runs one by one, per token, where an operation reads and writes what it needs and
returns: a norm about 10 widths, rotary positions 12, a residual sum 3, a gated activation 5 inner widths; twice that on
the way back. They are small beside the matrix products of a large model, and as large in a model of a few million
parameters. A kernel that fuses several of them moves less.
"""

from tools.capacity.operations import moment_sizes
from tools.capacity.shape import DecoderShape

_WIDTHS, _INNER = 38, 5
"""Of a block, forward."""
_BACK = 3
"""Forward and back, over forward."""
_LOSS = 12
"""Of the vocabulary: softmax, the loss and its gradient."""
_SAMPLED_LOSS = 24
"""Of the vocabulary: the same, and a sampled label, the squares of the gradient, and rows that are picked out."""
_NORMS = 20
"""Of a block's width: the gradients of norms by sequence."""
_PICKED = 2
"""Of inputs and gradients: rows that carry loss are picked out of them."""


def forward_traffic(shape: DecoderShape) -> float:
    """Return the numbers per token of a forward pass and its loss."""
    return float(_block(shape) + _LOSS / _BACK * shape.vocabulary)


def training_traffic(shape: DecoderShape) -> float:
    """Return the numbers per token of a pass forward and back."""
    return float(_BACK * _block(shape) + _LOSS * shape.vocabulary)


def factor_traffic(shape: DecoderShape) -> float:
    """Return the numbers per token of K-FAC's pass."""
    moments = _PICKED * sum(moment_sizes(shape)) + _NORMS * shape.layers * shape.width
    return float(_BACK * _block(shape) + _SAMPLED_LOSS * shape.vocabulary + moments)


def _block(shape: DecoderShape) -> int:
    return shape.layers * (_WIDTHS * shape.width + _INNER * shape.feed_forward)
