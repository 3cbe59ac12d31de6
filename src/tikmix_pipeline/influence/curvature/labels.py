"""Labels that the Fisher is fitted with.

Axes: N loss-carrying positions, V vocabulary.
"""

import torch
from torch import Tensor


def sample_labels(probability_NV: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one label per row by inverting its cumulative distribution.

    One uniform number per row, drawn on the CPU in row order, makes the labels independent of the batch size and of
    the device, and a second pass with the same seed sees the same labels.
    """
    uniform_N = torch.rand(len(probability_NV), generator=generator, dtype=torch.float64).to(probability_NV)
    cumulative_NV = probability_NV.cumsum(dim=1)
    thresholds_N1 = (uniform_N * cumulative_NV[:, -1])[:, None]
    labels_N = torch.searchsorted(cumulative_NV, thresholds_N1, right=True)[:, 0]
    return labels_N.clamp(max=probability_NV.shape[1] - 1)
