"""Labels that the Fisher is fitted with.

Axes: N loss-carrying positions, V vocabulary.
"""

import torch
from torch import Tensor


def draw_uniform(rows: int, generator: torch.Generator) -> Tensor:
    """Draw what decides the labels of so many rows; in several goes the numbers are the same."""
    return torch.rand(rows, generator=generator, dtype=torch.float64)


def sample_labels(probability_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Draw one label per row by inverting its cumulative distribution.

    One uniform number per row, drawn on the CPU in row order, makes the labels independent of the batch size, of the
    device and of who samples which rows, and a second pass with the same seed sees the same labels.

    Args:
        probability_NV: a distribution per row.
        uniform_N: of `draw_uniform`.
    """
    cumulative_NV = probability_NV.cumsum(dim=1)
    thresholds_N1 = (uniform_N.to(probability_NV) * cumulative_NV[:, -1])[:, None]
    labels_N = torch.searchsorted(cumulative_NV, thresholds_N1, right=True)[:, 0]
    return labels_N.clamp(max=probability_NV.shape[1] - 1)
