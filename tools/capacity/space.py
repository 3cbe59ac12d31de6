"""Bytes of a device's memory, and of the disk, by formula.

Weights, gradients, covariances and the optimiser's state are in float32 and shared out over devices evenly; one block's
weights are gathered at a time. What every device has for itself are the activations of its batch and what the output
head makes of them: of more than 2²⁴ logits a chunk of tokens at a time (`lm.output_head`), and with them the gradient
of the head's weight. Per token and block, a Llama keeps 6 widths of residual stream and norms, queries and attention's
output, keys and values, and 4 inner widths; a measurement keeps them all, also with `train.activation_checkpointing`.

Products have one block of the curvature open at a time, if all of them are more than 2²⁴ scalars, and rows of gradients
in `influence.memory_megabytes` (`influence.products`). On disk lie the gradients of all chunks of tasks and domains
(`keep`), or in bfloat16 those of the tasks' chunks, and once more what the block under way makes of them (`stream`).

What the allocator keeps for itself is not in these figures, nor are the 0.45 GB of the libraries.
"""

from collections.abc import Iterator
from math import ceil
from typing import Literal, NamedTuple

from tools.capacity.costs import Workload, covariance_sizes, decomposed_sizes
from tools.capacity.devices import Device
from tools.capacity.shape import DecoderShape

Gradients = Literal["keep", "stream"]
KeptPrecision = Literal["float32", "bfloat16"]

FLOAT32, BFLOAT16 = 4, 2
MOST_LOGITS = 1 << 24
"""`lm.output_head.MOST_LOGITS`."""
MOST_OPEN = 1 << 24
"""Scalars up to which all blocks of a curvature stay open (`influence.curvature.build`)."""
MOST_KEPT = 10e9
"""Bytes of gradients above which `influence.gradients=auto` streams."""

_FLOAT64 = 8
_ADAMW_COPIES = 4
"""Weight, gradient and the two running means of AdamW."""
_EIGEN_COPIES = 4
"""A matrix, its eigenvectors and LAPACK's work space of twice its size."""
_OPENING = 12
"""Bytes per eigenvalue while a block is opened: in float64, and in float32."""
_WIDTHS, _INNER = 6, 4
"""Widths and inner widths that a block keeps per token, beside queries, keys, values and the attention's output."""
_MIXED_WIDTHS = (4.5, 5)
"""The same widths under autocast, in float32 and in the lower precision."""
_NORM_WIDTHS = 4
"""Per block and token: gradients by the outputs of both norms, which wait for the end of the factors' backward pass."""
_WHOLE, _CHUNK, _MIXED_CHUNK = 3, 1, 4
"""Logits in float32 at a time, in units of those of the pass, or of a chunk: logits, probabilities, gradient; all in
place; under autocast once more in float32 (assumed)."""
_SAMPLED = 3
"""The same while labels are sampled: logits, probabilities, their cumulative sums or the gradient."""


class _Block(NamedTuple):
    """A block of the curvature."""

    size: int
    vectors: int
    """Numbers of its eigenvectors."""
    is_divisible: bool


# disk


def gradient_disk(
    shape: DecoderShape, workload: Workload, gradients: Gradients = "keep", kept: KeptPrecision = "float32"
) -> float:
    """Return the most bytes that gradients take at a time."""
    tasks, domains = workload.rows
    if gradients == "keep":
        number = FLOAT32 if kept == "float32" else BFLOAT16
        return float(number * shape.parameters * (tasks + domains))
    under_way = max(block.size for block in _blocks(shape))
    return float(BFLOAT16 * tasks * (shape.parameters + under_way))


def factor_bytes(shape: DecoderShape) -> float:
    """Return the bytes of K-FAC's factors; of the diagonals, small beside them, those along a vocabulary count."""
    dense = sum(size**2 for size in covariance_sizes(shape))
    return float(FLOAT32 * (dense + sum(shape.tables()) + shape.tied * shape.vocabulary))


def factor_disk(shape: DecoderShape) -> float:
    """Return what the factors take on disk, where a covariance is its lower triangle."""
    upper = sum(size * (size - 1) // 2 for size in covariance_sizes(shape))
    return factor_bytes(shape) - FLOAT32 * upper


def checkpoint_disk(shape: DecoderShape) -> float:
    """Return the bytes of a checkpoint with the optimiser's state."""
    return float(FLOAT32 * (_ADAMW_COPIES - 1) * shape.parameters)


# memory


def gradient_memory(shape: DecoderShape, workload: Workload, device: Device, devices: int) -> float:
    """Return the bytes per device while gradients are summed: weights, sums, and a pass."""
    copies = 2 if devices == 1 else 3  # of several devices each has its share of a batch's gradient, too
    shared = FLOAT32 * copies * shape.parameters / devices
    return shared + _gathered(shape, device, devices) + _pass(shape, workload.pass_tokens, device)


def factor_memory(shape: DecoderShape, workload: Workload, device: Device, devices: int) -> float:
    """Return the bytes per device while covariances are summed."""
    shared = (FLOAT32 * shape.parameters + factor_bytes(shape)) / devices
    # of the block under way, before it is reduced to the device that keeps it
    local = factor_bytes(shape) / shape.layers if devices > 1 else 0.0
    tokens = min(workload.pass_tokens, workload.factor_tokens)
    rows = min(tokens, _tokens_at_once(shape))
    norms = FLOAT32 * _NORM_WIDTHS / 2 * shape.width * shape.layers * tokens
    passing = activations(shape, tokens, device) + norms + _SAMPLED * FLOAT32 * rows * shape.vocabulary
    return shared + local + _gathered(shape, device, devices) + passing


def decomposition_memory(shape: DecoderShape, devices: int) -> float:
    """Return the bytes of the device that opens the block which takes most, beside what is open already."""
    opening = max(_OPENING * block.size for block in _blocks(shape))
    return _open_blocks(shape, devices) + max(opening, _FLOAT64 * _EIGEN_COPIES * max(decomposed_sizes(shape)) ** 2)


def product_memory(
    shape: DecoderShape, workload: Workload, devices: int, *, preconditioned: bool, gradients: Gradients = "keep"
) -> float:
    """Return the bytes per device while gradients are multiplied; of `stream`, those of the tasks by the curvature."""
    rows = workload.rows[0] if gradients == "stream" else sum(workload.rows)
    if not preconditioned:
        return min(_limit(workload), FLOAT32 * rows * max(block.size for block in _blocks(shape)))
    wanted = max(max(_needed(workload.rows[0]), FLOAT32 * rows) * block.size for block in _blocks(shape))
    working = min(wanted, max(_limit(workload), least_working(shape)))
    return _open_blocks(shape, devices) + working


def streaming_memory(
    shape: DecoderShape, workload: Workload, device: Device, devices: int, *, preconditioned: bool
) -> float:
    """Return the bytes while the tasks' gradients are multiplied beside the model, or the domains' are summed."""
    multiplied = FLOAT32 * shape.parameters / devices + product_memory(
        shape, workload, devices, preconditioned=preconditioned, gradients="stream"
    )
    stays_open = preconditioned and shape.parameters / devices <= MOST_OPEN
    beside = _open_blocks(shape, devices) if stays_open else 0.0
    return max(multiplied, gradient_memory(shape, workload, device, devices) + beside)


def branch_memory(shape: DecoderShape, workload: Workload, device: Device, devices: int) -> float:
    """Return the bytes per device while a branch trains on so many."""
    shared = FLOAT32 * _ADAMW_COPIES * shape.parameters / devices
    tokens = workload.batch_tokens
    passing = _pass(shape, tokens, device)
    if workload.checkpointing:
        # of all blocks but the one that is computed again, what they read
        block = activations(shape, tokens, device) / shape.layers
        passing += block + device.number * shape.width * shape.layers * tokens - activations(shape, tokens, device)
    return shared + _gathered(shape, device, devices) + passing


def activations(shape: DecoderShape, tokens: int, device: Device) -> float:
    """Return the bytes that the blocks keep of so many tokens for the way back."""
    keys = shape.attention_width // shape.heads * shape.key_value_heads
    own = 2 * shape.attention_width + 2 * keys + _INNER * shape.feed_forward
    if device.number == FLOAT32:
        token = float(FLOAT32 * (_WIDTHS * shape.width + own))
    else:
        raised, lowered = _MIXED_WIDTHS
        token = FLOAT32 * raised * shape.width + device.number * (lowered * shape.width + own)
    return tokens * shape.layers * token


# products in bounded memory


def least_working(shape: DecoderShape) -> float:
    """Return the bytes that one gradient by the largest block takes that cannot be cut: less will not do."""
    return float(_needed(1) * max(block.size for block in _blocks(shape) if not block.is_divisible))


def single_read_working(shape: DecoderShape, workload: Workload) -> float:
    """Return the bytes with which no gradient is read twice: all tasks' by the largest block that cannot be cut."""
    return least_working(shape) / _needed(1) * _needed(workload.rows[0])


def numbers_read(shape: DecoderShape, workload: Workload) -> float:
    """Return the numbers that products of kept gradients read: the domains' once per band of the tasks' rows."""
    tasks, domains = workload.rows
    limit = max(_limit(workload), least_working(shape))
    read = 0.0
    for block in _blocks(shape):
        read += block.size * (tasks + domains * (1 if block.is_divisible else ceil(tasks / _rows(limit, block.size))))
    return read


def _rows(limit: float, size: int) -> int:
    """Return the gradients by a block that are multiplied at once (`influence.products.Room`)."""
    scalar = limit // size
    return max(1, int(min((scalar // FLOAT32 - 1) // 4, (scalar - 50) // (2 * FLOAT32))))


def _needed(rows: int) -> int:
    """Return the bytes per scalar while so many gradients are multiplied by a block (`influence.products.Room`)."""
    return max((4 * rows + 1) * FLOAT32, 2 * rows * FLOAT32 + 50)


def _limit(workload: Workload) -> float:
    return 1e6 * workload.memory_megabytes


def _blocks(shape: DecoderShape) -> Iterator[_Block]:
    """Yield the blocks of K-FAC that count: of every matrix, and of the tables."""
    for matrix in shape.matrices():
        vectors = matrix.outputs**2 + matrix.columns**2
        yield from [_Block(matrix.size, vectors, is_divisible=False)] * shape.layers
    for rows in shape.tables():
        yield _Block(rows * shape.width, shape.width**2, is_divisible=True)


def _open_blocks(shape: DecoderShape, devices: int) -> float:
    """Return the bytes of eigenvectors and eigenvalues that are held."""
    if shape.parameters / devices <= MOST_OPEN:
        return (factor_bytes(shape) + FLOAT32 * shape.parameters) / devices
    return float(FLOAT32 * max(block.size + block.vectors for block in _blocks(shape)))


# passes


def _pass(shape: DecoderShape, tokens: int, device: Device) -> float:
    """Return the bytes of a pass forward and back, beside weights and sums."""
    rows = min(tokens, _tokens_at_once(shape))
    in_chunks = _CHUNK if device.number == FLOAT32 else _MIXED_CHUNK
    copies = _WHOLE if rows == tokens else in_chunks
    table = FLOAT32 * shape.vocabulary * shape.width
    # the gradient of the head's weight, and a chunk of logits or one more gradient of that size
    head = table + max(copies * FLOAT32 * rows * shape.vocabulary, table)
    return activations(shape, tokens, device) + head


def _tokens_at_once(shape: DecoderShape) -> int:
    return max(1, MOST_LOGITS // shape.vocabulary)


def _gathered(shape: DecoderShape, device: Device, devices: int) -> float:
    """Return the bytes of weights in the precision of passes beside their shares.

    One device casts them all, unless passes are in float32; several gather one block, its gradients, and the next.
    """
    if devices == 1:
        return float(device.number * shape.parameters) if device.number < FLOAT32 else 0.0
    return 3.0 * device.number * shape.layer_parameters
