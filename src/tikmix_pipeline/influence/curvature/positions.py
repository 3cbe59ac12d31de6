"""Which positions of a batch predict a token that carries loss.

Axes: B sequences, P positions, N loss-carrying positions, i width of a layer.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError


@dataclass(frozen=True)
class Positions:
    """The loss-carrying positions of a batch.

    Attributes:
        carries_BP: True at those positions.
        everywhere: all are; rows then need no copy.
        counts_B: how many there are in each sequence.
        lengths_B: positions of each sequence up to the last of them; no later one has a gradient.
    """

    carries_BP: Tensor
    everywhere: bool
    counts_B: tuple[int, ...]
    lengths_B: tuple[int, ...]

    @classmethod
    def of(cls, batch: TokenBatch, device: torch.device) -> "Positions":
        """Shift the batch's mask: the input at position s - 1 predicts token s."""
        carries_BP = batch.loss_BS[:, 1:]
        last_B = carries_BP.shape[1] - np.argmax(carries_BP[:, ::-1], axis=1)
        counts_B = carries_BP.sum(1)
        lengths_B = np.where(counts_B > 0, last_B, 0)
        on_device = torch.from_numpy(carries_BP).to(device)
        return cls(on_device, bool(carries_BP.all()), tuple(counts_B.tolist()), tuple(lengths_B.tolist()))

    @property
    def sequences(self) -> int:
        """Sequences of the batch."""
        return len(self.counts_B)

    def rows(self, values_BPi: Tensor, layer: str) -> Tensor:
        """Return the values of a layer at these positions, (N, i).

        Raises:
            TikmixError: the values are not laid out by sequence and position, as behind a router of experts.
        """
        if values_BPi.ndim != 3 or values_BPi.shape[:2] != self.carries_BP.shape:
            raise TikmixError(
                f"The Fisher cannot tell the positions in layer {layer}, which works on {tuple(values_BPi.shape)} for "
                f"{tuple(self.carries_BP.shape)} sequences and positions. Use influence.curvature=adam or identity, or "
                "leave its kind out of influence.groups."
            )
        return values_BPi.flatten(0, 1) if self.everywhere else values_BPi[self.carries_BP]

    def require_sequences(self, values: Tensor, layer: str) -> Tensor:
        """Return the values of a layer, whose first axis must be the batch's sequences.

        Raises:
            TikmixError: it is not.
        """
        if values.ndim < 3 or len(values) != self.sequences:
            raise TikmixError(
                f"The Fisher cannot tell the sequences in layer {layer}, which works on {tuple(values.shape)} for "
                f"{self.sequences} sequences. Use influence.curvature=adam or identity, or leave its kind out of "
                "influence.groups."
            )
        return values
