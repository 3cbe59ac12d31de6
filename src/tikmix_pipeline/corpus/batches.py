"""`TokenBatch`: sequences and which of their tokens carry loss.

Axes: B sequences, S tokens of a sequence.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded sequences.

    Attributes:
        tokens_BS: token ids, int64.
        loss_BS: True where the token is predicted and its loss counts; column 0 is False, and so is padding.
    """

    tokens_BS: npt.NDArray[np.int64]
    loss_BS: npt.NDArray[np.bool_]

    @classmethod
    def of_windows(cls, tokens_BS: npt.NDArray[np.int64]) -> "TokenBatch":
        """Wrap full windows of training text, in which every token but the first carries loss."""
        loss_BS = np.ones(tokens_BS.shape, dtype=np.bool_)
        loss_BS[:, 0] = False
        return cls(tokens_BS, loss_BS)

    @property
    def loss_tokens(self) -> int:
        """The number of tokens that carry loss."""
        return int(self.loss_BS.sum())

    def __len__(self) -> int:
        return len(self.tokens_BS)
