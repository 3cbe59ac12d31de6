"""Floating-point operations, by formula, as `lm.cost` counts them in a run: matrix products, attention in full, and
symmetric eigendecompositions.

With n the parameters of the linear layers and the head, per token of a sequence of S positions:

| | operations |
|---|---|
| forward | 2 n + 4 S · (width of all heads) · layers |
| forward and backward | three times that |
| K-FAC's pass, without weight gradients | 4 n + 3 times the attention |
| K-FAC's second moments | 2 d² for every moment of d x d |

An eigendecomposition of d x d takes 9 d³. Preconditioning a gradient takes 4 (o² i + o i²) per linear layer and 4 V i²
per table of V rows; a product of two gradients 2 per parameter.
"""

from collections.abc import Iterator

from tools.capacity.shape import DecoderShape

_EIGENDECOMPOSITION = 9


def forward_flops(shape: DecoderShape, context: int) -> float:
    """Return the operations of one token's forward pass in a sequence of `context` positions."""
    return 2.0 * _weights(shape) + _attention(shape, context)


def training_flops(shape: DecoderShape, context: int) -> float:
    """Return the operations of one token's pass forward and back, to the gradients of all parameters."""
    return 3 * forward_flops(shape, context)


def factor_pass_flops(shape: DecoderShape, context: int) -> float:
    """Return the operations of one token's pass forward, and back to the activations alone."""
    return 4.0 * _weights(shape) + 3 * _attention(shape, context)


def moment_flops(shape: DecoderShape) -> float:
    """Return the operations of adding one token to all second moments of K-FAC."""
    return sum(2.0 * size**2 for size in moment_sizes(shape))


def eigendecomposition_flops(shape: DecoderShape) -> float:
    """Return the operations of decomposing all moments."""
    return sum(decomposition_flops(size) for size in decomposed_sizes(shape))


def decomposition_flops(size: int) -> float:
    """Return the operations of decomposing one moment of `size` x `size`."""
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


def moment_sizes(shape: DecoderShape) -> Iterator[int]:
    """Yield the size of every second moment: of outputs, of inputs, and on the inner side of embeddings and head."""
    for _ in range(shape.layers):
        for matrix in shape.matrices():
            yield matrix.outputs
            if matrix.leads:
                yield matrix.columns
    # a tied weight has one moment as an embedding and another as a head
    yield from [shape.width] * (len(shape.tables()) + shape.tied)


def decomposed_sizes(shape: DecoderShape) -> Iterator[int]:
    """Yield the size of every moment that is decomposed; the two of a tied weight are merged before."""
    sizes = list(moment_sizes(shape))
    yield from sizes[: len(sizes) - shape.tied]


def _weights(shape: DecoderShape) -> int:
    """Return the weights that a token is multiplied with."""
    linear = sum(matrix.inputs * matrix.outputs for matrix in shape.matrices())
    return shape.layers * linear + shape.vocabulary * shape.width


def _attention(shape: DecoderShape, context: int) -> float:
    return 4.0 * context * shape.attention_width * shape.layers
