"""What a model reads: `Windows` of a domain's training tokens, and `TokenBatch`, sequences and which tokens carry loss.

A window is `context + 1` tokens, so that inputs and targets are two views of it, and windows start `context` tokens
apart: every token but the very first is a target exactly once per epoch. The files of a domain are read as one, back to
back; the tokens left over at the end, fewer than `context`, belong to no window.

Cost: a window inside one file is a view of the memory map; a window that spans a file's end is copied once, at the
start. Nothing else is held.

Axes: B sequences of a batch, N windows, S tokens of a sequence or window (`context + 1`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.integer]


class Windows:
    """Windows of `context + 1` tokens at stride `context` over a domain's files.

    Files are 1-D arrays or memory maps of token ids, all of one `dtype`, in order.
    """

    def __init__(self, files: Sequence[Tokens], context: int) -> None:
        self.context = context
        self.dtype = np.dtype(files[0].dtype if files else np.uint16)
        self._length = max(0, (sum(len(file) for file in files) - 1) // context)
        # runs of windows: those inside one file, and those that span a file's end
        self._firsts: list[int] = []
        self._runs: list[npt.NDArray[np.void]] = []
        start = 0
        for file in files:
            first = -(-start // context)
            inside = np.asarray(file)[first * context - start :]
            if len(inside) > context:
                self._add_run(first, np.lib.stride_tricks.sliding_window_view(inside, context + 1)[::context])
            start += len(file)
            across = (start - 1) // context
            known = self._firsts[-1] + len(self._runs[-1]) if self._runs else 0
            if known <= across < self._length:
                self._add_run(across, _read(files, across * context, context + 1)[None])

    def _add_run(self, first: int, windows_NS: Tokens) -> None:
        self._firsts.append(first)
        self._runs.append(as_items(windows_NS))

    def __len__(self) -> int:
        return self._length

    def take(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return the windows at `indices`: (len(indices), context + 1). Others raise IndexError."""
        return self.gather(indices).astype(np.int64)

    def gather(self, indices: npt.NDArray[np.integer]) -> Tokens:
        """Return the same as `take`, in the files' own dtype."""
        if len(indices) and not 0 <= int(np.min(indices)) <= int(np.max(indices)) < len(self):
            raise IndexError(f"window indices must lie in [0, {len(self)}), got {indices}")
        items_N = self._runs[0][indices] if len(self._runs) == 1 else self._gather_from_runs(indices)
        windows_NS: Tokens = items_N.view(self.dtype).reshape(len(indices), self.context + 1)
        return windows_NS

    def _gather_from_runs(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.void]:
        items_N = as_items(np.empty((len(indices), self.context + 1), dtype=self.dtype))
        runs_N = np.searchsorted(self._firsts, indices, side="right") - 1
        for run in np.unique(runs_N):
            here_N = runs_N == run
            items_N[here_N] = self._runs[run][indices[here_N] - self._firsts[run]]
        return items_N


def as_items(windows_NS: Tokens) -> npt.NDArray[np.void]:
    """View each window as one opaque item; NumPy copies those at two to three times the speed of 2-D rows."""
    item = np.dtype((np.void, windows_NS.shape[-1] * windows_NS.itemsize))
    return windows_NS.view(item)[..., 0]


def _read(files: Sequence[Tokens], start: int, count: int) -> Tokens:
    """Copy `count` tokens from token `start` of the files taken as one."""
    pieces: list[Tokens] = []
    for file in files:
        piece = np.asarray(file)[start : start + count]
        pieces.append(piece)
        count -= len(piece)
        start = max(0, start - len(file))
    return np.concatenate(pieces)


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded sequences."""

    tokens_BS: npt.NDArray[np.int64]
    """Token ids, int64."""
    loss_BS: npt.NDArray[np.bool_]
    """True where the token is predicted and its loss counts; column 0 is False, and so is padding."""

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

    def rows(self, which: slice | Sequence[int]) -> "TokenBatch":
        """Return some of the sequences, in the order that they are named in."""
        return TokenBatch(self.tokens_BS[which], self.loss_BS[which])

    @property
    def terms(self) -> int:
        """The number of losses that a mean loss is taken over: one per token that carries loss."""
        return self.loss_tokens

    def __len__(self) -> int:
        return len(self.tokens_BS)


def digest_of(batches: Sequence[TokenBatch]) -> str:
    """Return the SHA-256 of batches: of their shapes, their tokens, which of these carry loss, and all else."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(str(batch.tokens_BS.shape).encode())
        for values in vars(batch).values():
            digest.update(values.tobytes())
    return digest.hexdigest()


def batches_of(windows: npt.NDArray[np.int64], batch_size: int) -> list[TokenBatch]:
    """Cut windows of plain text into batches."""
    return [TokenBatch.of_windows(windows[start : start + batch_size]) for start in range(0, len(windows), batch_size)]
