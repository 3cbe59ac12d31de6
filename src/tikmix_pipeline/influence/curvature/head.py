"""The output head of a model in one batch: the labels of its loss, and the gradients of its logits.

The gradient of token n's loss by the head's output v is s_nv (p_nv − [y_n = v]), with s = 1 unless the model scales or
caps its logits. Over labels that follow p, its square is s² p (1 − p) on average, exactly: the Fisher of a head needs
no sample. The empirical Fisher takes the label of the text.

Axes: N loss-carrying positions, i inputs, V vocabulary, P positions, B sequences.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tikmix_pipeline.influence.curvature.hooks import Positions


@dataclass(frozen=True)
class HeadBatch:
    """A batch at the output head.

    Attributes:
        inputs_Ni: final hidden states.
        slope: s, either one number or (N, V).
        probability_NV: predicted distributions.
        labels_N: the labels of the loss.
        expected: labels are the model's own, so squares are averaged over them.
    """

    inputs_Ni: Tensor
    slope: Tensor
    probability_NV: Tensor
    labels_N: Tensor
    expected: bool

    @classmethod
    def of(
        cls,
        call: tuple[Tensor, Tensor],
        logits_BPV: Tensor,
        probability_NV: Tensor,
        labels_N: Tensor,
        *,
        at: Positions,
        expected: bool,
    ) -> "HeadBatch":
        """Read what the head did off its call: its input, and its output, of which the logits are made."""
        inputs_BPi, outputs_BPV = call
        if outputs_BPV is logits_BPV:
            slope = probability_NV.new_ones(())
        else:
            (slope_BPV,) = torch.autograd.grad(logits_BPV.sum(), outputs_BPV, retain_graph=True)
            slope = slope_BPV[at.carries_BP].to(probability_NV)
        inputs_Ni = at.rows(inputs_BPi, "of the output head").to(probability_NV)
        return cls(inputs_Ni, slope, probability_NV, labels_N, expected)

    def score(self) -> Tensor:
        """Return the gradient of each token's loss by the head's output, (N, V)."""
        return cross_entropy_gradient(self.probability_NV, self.labels_N).mul_(self.slope)

    def squares(self) -> Tensor:
        """Return the square of the score, (N, V), averaged over labels where they are the model's own."""
        if not self.expected:
            return self.score().square_()
        return (self.probability_NV * (1 - self.probability_NV)).mul_(self.slope.square())


def cross_entropy_gradient(probability_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Return the gradient of the summed cross-entropy by the logits, p − [y = v]: no second softmax is needed."""
    gradient_NV = probability_NV.clone()
    gradient_NV[torch.arange(len(gradient_NV), device=gradient_NV.device), labels_N] -= 1
    return gradient_NV


def draw_uniform(rows: int, generator: torch.Generator) -> Tensor:
    """Draw what decides the labels of so many rows; in several goes the numbers are the same."""
    return torch.rand(rows, generator=generator, dtype=torch.float64)


def sample_labels(probability_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Draw one label per row by inverting its cumulative distribution.

    One uniform number per row, drawn on the CPU in row order, makes the labels independent of the batch size, of the
    device and of who samples which rows, and a second pass with the same seed sees the same labels.

    Args:
        probability_NV: a distribution per row.
        uniform_N: numbers that `draw_uniform` drew for these rows.
    """
    cumulative_NV = probability_NV.cumsum(dim=1)
    thresholds_N1 = (uniform_N.to(probability_NV) * cumulative_NV[:, -1])[:, None]
    labels_N = torch.searchsorted(cumulative_NV, thresholds_N1, right=True)[:, 0]
    return labels_N.clamp(max=probability_NV.shape[1] - 1)
