"""A batch at the output head: labels, and the gradient of each token's loss by what the head returns.

The gradient of token n's loss by the head's output v is s_nv (p_nv − [y_n = v]), with s = 1 unless the model scales or
caps its logits. Over labels that follow p, its square is s² p (1 − p) on average, exactly: the Fisher of a head needs
no sample. The empirical Fisher takes the label of the text.

Where logits are too many to hold (`lm.output_head`), probabilities are computed from the hidden states for the tokens
that are asked for, each time again.

Axes: B sequences, P positions, N loss-carrying positions, n some of them, V vocabulary, i inputs of the head.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tikmix_pipeline.influence.curvature.hooks import Positions
from tikmix_pipeline.lm.output_head import raised, tokens_at_once


@dataclass(frozen=True)
class HeadRows:
    """Some tokens of a batch at the output head."""

    inputs_ni: Tensor
    """Final hidden states."""
    slope: Tensor
    """s, either one number or (n, V)."""
    probability_nV: Tensor
    labels_n: Tensor
    expected: bool
    """Labels are the model's own, so squares are averaged over them."""

    def score(self) -> Tensor:
        """Return the gradient of each token's loss by the head's output, (n, V)."""
        return cross_entropy_gradient(self.probability_nV, self.labels_n).mul_(self.slope)

    def squares(self) -> Tensor:
        """Return the square of the score, (n, V), averaged over labels where they are the model's own."""
        if not self.expected:
            return self.score().square_()
        return (self.probability_nV * (1 - self.probability_nV)).mul_(self.slope.square())


@dataclass(frozen=True)
class HeadBatch:
    """All tokens of a batch at the output head, to be read some at a time."""

    rows: Callable[[slice], HeadRows]
    at_once: int
    """Tokens whose probabilities may be held."""

    def of_sequences(self, counts_B: Sequence[int]) -> Iterator[tuple[range, HeadRows]]:
        """Yield whole sequences, as many as may be held but at least one, by their numbers and with their tokens.

        `counts_B` is how many tokens carry loss in each.
        """
        first, start, stop = 0, 0, 0
        for number, count in enumerate([*counts_B, self.at_once + 1]):
            if number > first and stop + count - start > self.at_once:
                yield range(first, number), self.rows(slice(start, stop))
                first, start = number, stop
            stop += count

    @classmethod
    def of_logits(
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
        slope_NV: Tensor | None = None
        if outputs_BPV is not logits_BPV:
            (slope_BPV,) = torch.autograd.grad(logits_BPV.sum(), outputs_BPV, retain_graph=True)
            slope_NV = slope_BPV[at.carries_BP].to(probability_NV)
        inputs_Ni = at.rows(inputs_BPi, "of the output head").to(probability_NV)

        def rows(of: slice) -> HeadRows:
            slope = probability_NV.new_ones(()) if slope_NV is None else slope_NV[of]
            return HeadRows(inputs_Ni[of], slope, probability_NV[of], labels_N[of], expected)

        return cls(rows, max(1, len(labels_N)))


@dataclass(frozen=True)
class DividedHead:
    """A plain linear head whose logits are too many to hold."""

    module: nn.Linear
    weight_Vi: Tensor
    """Detached and whole, also where the model is in shards."""
    bias_V: Tensor | None

    @property
    def at_once(self) -> int:
        """Tokens whose probabilities may be held."""
        return tokens_at_once(len(self.weight_Vi))

    def probability(self, hidden_ni: Tensor) -> Tensor:
        """Return the probabilities of some tokens, (n, V), in float32 or better."""
        return raised(F.linear(hidden_ni.to(self.weight_Vi.dtype), self.weight_Vi, self.bias_V)).softmax(dim=1)

    def labels(self, hidden_Ni: Tensor, label: Callable[[slice, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return labels and the gradient of the summed loss by the hidden states, (N,) and (N, i), chunk by chunk.

        `label` names the labels of some tokens, given which they are and their probabilities.
        """
        labels: list[Tensor] = []
        gradient_Ni = torch.empty_like(hidden_Ni)
        for start in range(0, max(1, len(hidden_Ni)), self.at_once):  # a rank may have no token
            of = slice(start, start + self.at_once)
            probability_nV = self.probability(hidden_Ni[of])
            labels.append(label(of, probability_nV))
            score_nV = cross_entropy_gradient(probability_nV, labels[-1])
            gradient_Ni[of] = score_nV.to(self.weight_Vi.dtype) @ self.weight_Vi
        return torch.cat(labels), gradient_Ni

    def batch(self, hidden_Ni: Tensor, labels_N: Tensor, *, expected: bool) -> HeadBatch:
        """Return the batch at the head, whose probabilities are computed as they are asked for."""

        def rows(of: slice) -> HeadRows:
            probability_nV = self.probability(hidden_Ni[of])
            inputs_ni = hidden_Ni[of].to(probability_nV)
            return HeadRows(inputs_ni, probability_nV.new_ones(()), probability_nV, labels_N[of], expected)

        return HeadBatch(rows, self.at_once)


def cross_entropy_gradient(probability_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Return the gradient of the summed cross-entropy by the logits, p − [y = v]: no second softmax is needed."""
    gradient_NV = probability_NV.clone()
    gradient_NV[torch.arange(len(gradient_NV), device=gradient_NV.device), labels_N] -= 1
    return gradient_NV


def draw_uniform(rows: int, generator: torch.Generator) -> Tensor:
    """Draw what decides the labels of so many rows; in several goes the numbers are the same."""
    return torch.rand(rows, generator=generator, dtype=torch.float64)


def sample_labels(probability_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Draw one label per row by inverting its cumulative distribution at the number that `draw_uniform` drew for it.

    One uniform number per row, drawn on the CPU in row order, makes the labels independent of the batch size, of the
    device and of who samples which rows, and a second pass with the same seed sees the same labels.
    """
    cumulative_NV = probability_NV.cumsum(dim=1)
    thresholds_N1 = (uniform_N.to(probability_NV) * cumulative_NV[:, -1])[:, None]
    labels_N = torch.searchsorted(cumulative_NV, thresholds_N1, right=True)[:, 0]
    return labels_N.clamp(max=probability_NV.shape[1] - 1)
