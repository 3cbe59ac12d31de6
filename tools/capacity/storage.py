"""Bytes: of a device's memory, and of the disk.

Weights, gradients, moments and the optimiser's state are in float32 and shared out over devices evenly; one block's
weights are gathered at a time. What every device has for itself are the activations of its batch.
"""

from tools.capacity.devices import Device
from tools.capacity.operations import decomposed_sizes, moment_sizes
from tools.capacity.shape import DecoderShape
from tools.capacity.workload import Workload

_FLOAT32, _FLOAT64 = 4, 8
_ADAMW_COPIES = 4
"""Weight, gradient and two moments."""
_GRADIENT_COPIES = 3
"""Weight, gradient of a batch and the sum."""
_EIGEN_COPIES = 4
"""A matrix, its eigenvectors and LAPACK's work space of twice its size."""
_LOGIT_COPIES = 3
"""Logits, probabilities and their gradient, in float32."""


def gradient_disk(shape: DecoderShape, workload: Workload) -> float:
    """Return the bytes of all part gradients."""
    return float(_FLOAT32 * shape.parameters * sum(workload.rows))


def factor_disk(shape: DecoderShape) -> float:
    """Return the bytes of K-FAC's factors; of the diagonals, small beside them, those along a vocabulary count."""
    dense = sum(size**2 for size in moment_sizes(shape))
    return float(_FLOAT32 * (dense + sum(shape.tables()) + shape.tied * shape.vocabulary))


def checkpoint_disk(shape: DecoderShape) -> float:
    """Return the bytes of a checkpoint with the optimiser's state."""
    return float(_FLOAT32 * (_ADAMW_COPIES - 1) * shape.parameters)


def gradient_memory(shape: DecoderShape, workload: Workload, device: Device, devices: int) -> float:
    """Return the bytes per device while gradients are summed."""
    shared = _FLOAT32 * _GRADIENT_COPIES * shape.parameters / devices
    return shared + _gathered(shape, device, devices) + activations(shape, workload, device)


def factor_memory(shape: DecoderShape, workload: Workload, device: Device, devices: int) -> float:
    """Return the bytes per device while moments are summed."""
    shared = (_FLOAT32 * shape.parameters + factor_disk(shape)) / devices
    # of the block under way, before it is reduced to the device that keeps it
    local = factor_disk(shape) / shape.layers if devices > 1 else 0.0
    return shared + local + _gathered(shape, device, devices) + activations(shape, workload, device)


def decomposition_memory(shape: DecoderShape, devices: int) -> float:
    """Return the bytes of the device that decomposes the largest moment, beside its share of all."""
    return factor_disk(shape) / devices + _FLOAT64 * _EIGEN_COPIES * max(decomposed_sizes(shape)) ** 2


def product_memory(shape: DecoderShape, devices: int, working: float) -> float:
    """Return the bytes per device while gradients are multiplied.

    Args:
        shape: the model's.
        devices: how many share eigenvectors and eigenvalues.
        working: bytes of the rows under way (`influence.memory_megabytes`).
    """
    return (factor_disk(shape) + 2 * _FLOAT32 * shape.parameters) / devices + working


def branch_memory(shape: DecoderShape, workload: Workload, device: Device, devices: int) -> float:
    """Return the bytes per device while a branch trains on so many."""
    shared = _FLOAT32 * _ADAMW_COPIES * shape.parameters / devices
    return shared + _gathered(shape, device, devices) + activations(shape, workload, device)


def activations(shape: DecoderShape, workload: Workload, device: Device) -> float:
    """Return the bytes of a batch's activations: about 16 widths and 4 inner widths a block, and the logits."""
    block = device.number * (16 * shape.width + 4 * shape.feed_forward)
    kept = device.number * shape.width * shape.layers + block if workload.checkpointing else block * shape.layers
    return float(workload.batch_tokens * (kept + _LOGIT_COPIES * _FLOAT32 * shape.vocabulary))


def _gathered(shape: DecoderShape, device: Device, devices: int) -> float:
    """Return the bytes of one block's whole weights and gradients, and of the block that is fetched meanwhile."""
    return 0.0 if devices == 1 else 3.0 * device.number * shape.layer_parameters
