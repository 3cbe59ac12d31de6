"""`MixtureStream`: batches of training windows, mixed from domains by weights that may change at any step.

The batch at step s is a pure function of (seed, weights so far, s):

- *How many* rows each domain gets follows from the weights and the steps since they were set (`row_counts.py`): in
  every batch and over every stretch of batches from a weight change on, within one row of `weight * batch_size`.
- *Which* windows: each domain has one cursor that only moves forward, over a new permutation of its windows in every
  epoch, drawn from (seed, crc32 of its name, epoch). A weight change moves no cursor, so it repeats and skips nothing,
  and within an epoch every window comes once.
- *In which order* within the batch: a permutation drawn from (seed, step).
- The rows of the global batch are dealt to the ranks like cards, so any number of ranks reads the same tokens.

The state is a few integers per domain, whatever the size of the corpus. Domains are taken by name, never by position.

For speed, steps are planned and gathered in blocks of at most 256 steps and, if that is less, a million tokens; a
weight change drops the rest of the block, whose windows nobody has seen. Memory: one block (2 MB of uint16, or one
batch where that is more) and at most two permutations per domain of 1, 2 or 4 bytes per window (by their number): for a
billion tokens at context 256, 16 MB each. Throughput: `benchmarks/stream.py`. Permutations come from NumPy's PCG64;
NumPy may change its algorithms between releases, so resume under the release that wrote the state.

Axes: N steps of a block, B rows of a batch, K domains in the order of their names, S tokens of a window.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.corpus.batches import Tokens, Windows, as_items
from tikmix_pipeline.corpus.row_counts import RowCounts
from tikmix_pipeline.errors import TikmixError, nearest_name

_SUM_TOLERANCE = 1e-6
_STEPS_PER_BLOCK = 256
_TOKENS_PER_BLOCK = 2**20
_SUBSAMPLED = 2**32
"""Names the draw of a subsample beside those of the epochs, whose numbers it is above."""


@dataclass(frozen=True)
class _Block:
    """The plan of the steps from `first_step` to the end of a block.

    `consumed_NK` holds the windows read before each step and, in one row more, at the end; `tokens_NBS` what has been
    gathered, by rank and world size.
    """

    first_step: int
    counts_NK: npt.NDArray[np.int64]
    consumed_NK: npt.NDArray[np.int64]
    domain_NB: npt.NDArray[np.int64]
    window_NB: npt.NDArray[np.int64]
    tokens_NBS: dict[tuple[int, int], Tokens] = field(default_factory=dict)


class MixtureStream:
    """An endless stream of batches of `batch_size` windows, mixed from domains of one context by weight.

    Weights are shares of the tokens, one per domain, zero allowed, summing to 1.

    Attributes:
        step: batches read so far.
        weights: the current mixture.

    Raises:
        TikmixError: no domain, a domain without a whole window, unequal contexts, or bad weights.
    """

    def __init__(
        self, domains: Mapping[str, Windows], weights: Mapping[str, float], *, batch_size: int, seed: int
    ) -> None:
        self._context = _common_context(domains)
        self._names = sorted(domains)
        self._orders = [_WindowOrder(name, domains[name], seed) for name in self._names]
        self._dtype = np.result_type(*(windows.dtype for windows in domains.values()))
        self._batch_size = batch_size
        self._seed = seed
        self._steps_per_block = max(1, min(_STEPS_PER_BLOCK, _TOKENS_PER_BLOCK // (batch_size * self._context)))
        self._go_on_from(0, dict.fromkeys(self._names, 0), weights)

    @property
    def consumed(self) -> dict[str, int]:
        """Windows read so far, per domain."""
        block = self._planned
        consumed_K = self._start_K if block is None else block.consumed_NK[self.step - block.first_step]
        return dict(zip(self._names, consumed_K.tolist(), strict=True))

    def epochs(self, domain: str) -> float:
        """Return how many times `domain` has been read."""
        return self.consumed[domain] / len(self._order_of(domain))

    def counts(self) -> dict[str, int]:
        """Return the rows that each domain has in the next batch."""
        block = self._block()
        return dict(zip(self._names, block.counts_NK[self.step - block.first_step].tolist(), strict=True))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Mix by `weights` from the next batch on; equal weights change nothing, and bad ones raise TikmixError."""
        if dict(weights) != self.weights:
            self._go_on_from(self.step, self.consumed, weights)

    def skip(self, windows: Mapping[str, int]) -> None:
        """Move the cursors of domains ahead, so that the next batches read what would have come after.

        What is skipped counts as consumed; domains that are not named stay where they are. The weights stay, and are
        held to from here on anew; skipping nothing changes nothing.

        Raises:
            TikmixError: a name is no domain, or a number is negative.
        """
        unknown = sorted(windows.keys() - set(self._names))
        if unknown:
            raise TikmixError(f"{', '.join(unknown)} cannot be skipped: the stream has no such domain.")
        negative = sorted(name for name, count in windows.items() if count < 0)
        if negative:
            raise TikmixError(f"The stream only moves forward: fewer than 0 windows to skip of {', '.join(negative)}.")
        if any(windows.values()):
            consumed = {name: count + windows.get(name, 0) for name, count in self.consumed.items()}
            self._go_on_from(self.step, consumed, self.weights)

    def subsample(self, share: float) -> None:
        """Read from here on of every domain a random share of its windows, each where it would have come.

        What is read and what is still unread of an epoch shrink alike, so that a stretch of `share` as many batches
        repeats text as often as the whole stretch would have, and is as fresh. The same windows are drawn for the same
        seed and share. The weights stay, and are held to from here on anew; a share of 1 changes nothing.

        Raises:
            ValueError: the share is not above 0 and at most 1, or the stream was subsampled before.
        """
        if not 0 < share <= 1:
            raise ValueError(f"a share of the windows is above 0 and at most 1, not {share}")
        if share < 1:
            consumed = self.consumed
            left = {order.name: order.subsample(share, consumed[order.name]) for order in self._orders}
            self._go_on_from(self.step, left, self.weights)

    def next_batch(self, rank: int = 0, world_size: int = 1) -> npt.NDArray[np.int64]:
        """Return the rows of the next global batch that belong to `rank`: (batch_size / world_size, context + 1).

        Every rank's stream moves on by the whole global batch. The rows of a domain, taken in the order of the global
        batches, are its windows in the order of `upcoming`.

        Raises:
            TikmixError: `world_size` does not divide the batch size.
        """
        block = self._block()
        tokens_NBS = block.tokens_NBS.get((rank, world_size))
        if tokens_NBS is None:
            tokens_NBS = block.tokens_NBS[rank, world_size] = self._gather(block, rank, world_size)
        tokens_BS: npt.NDArray[np.int64] = tokens_NBS[self.step - block.first_step].astype(np.int64)
        self.step += 1
        return tokens_BS

    def upcoming(self, domain: str, count: int) -> npt.NDArray[np.int64]:
        """Return the next `count` windows of `domain`, in the order they will be read: (count, context + 1).

        Nothing is consumed. Where `count` reaches past the epoch, the windows of the next one follow.
        """
        order = self._order_of(domain)
        return order.windows.take(order.indices(self.consumed[domain], count))

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on from here, as plain JSON values."""
        return {
            **self._identity(),
            "step": self.step,
            "consumed": self.consumed,
            "weights": dict(self.weights),
            "weights_since": {"step": self._since_step, "consumed": dict(self._since_consumed)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken, with the mixture that was current there.

        Raises:
            TikmixError: the state is of another seed, batch size, context or set of windows; nothing is loaded.
        """
        for key, mine in self._identity().items():
            if state.get(key) != mine:
                raise TikmixError(
                    f"The stream's saved state cannot be resumed here: {_difference(key, state.get(key), mine)}. "
                    "Restore what the state was saved with, or start a new experiment."
                )
        self._go_on_from(state["step"], state["consumed"], state["weights"], state["weights_since"])

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a state to mean the same windows."""
        windows = {order.name: len(order) for order in self._orders}
        return {"seed": self._seed, "batch_size": self._batch_size, "context": self._context, "windows": windows}

    def _order_of(self, domain: str) -> "_WindowOrder":
        return self._orders[self._names.index(domain)]

    def _go_on_from(
        self,
        step: int,
        consumed: Mapping[str, int],
        weights: Mapping[str, float],
        since: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the stream where `weights` have been current `since` then, by default since `step`; plan anew."""
        check_weights(weights, self._names)
        since = since or {"step": step, "consumed": consumed}
        self.step = step
        self.weights = {name: float(weights[name]) for name in self._names}
        self._start_K = np.array([consumed[name] for name in self._names], dtype=np.int64)
        self._since_step, self._since_consumed = since["step"], dict(since["consumed"])
        self._row_counts = RowCounts(
            list(self.weights.values()),
            self._batch_size,
            batches=step - self._since_step,
            dealt=[consumed[name] - self._since_consumed[name] for name in self._names],
        )
        self._planned: _Block | None = None

    def _block(self) -> _Block:
        """Return the plan that covers the next step."""
        if self._planned is None or self.step >= self._planned.first_step + len(self._planned.counts_NK):
            self._planned = self._plan()
        return self._planned

    def _plan(self) -> _Block:
        """Decide domain and window of every row from the next step to the end of its block."""
        block, position = divmod(self.step, self._steps_per_block)
        rows_NB = np.tile(np.arange(self._batch_size), (self._steps_per_block, 1))
        order_NB = np.random.default_rng([self._seed, block]).permuted(rows_NB, axis=1)[position:]
        counts_NK = np.array([self._row_counts.deal() for _ in order_NB])
        start_K = np.array(list(self.consumed.values()))
        consumed_NK = np.concatenate([start_K[None], start_K + np.cumsum(counts_NK, axis=0)])
        by_domain = np.repeat(np.tile(np.arange(len(self._names)), len(order_NB)), counts_NK.ravel())
        domain_NB = np.take_along_axis(by_domain.reshape(order_NB.shape), order_NB, axis=1)
        window_NB = np.empty_like(domain_NB)
        for domain, (start, end) in enumerate(consumed_NK[[0, -1]].T.tolist()):
            if end > start:
                window_NB[domain_NB == domain] = self._orders[domain].indices(start, end - start)
        return _Block(self.step, counts_NK, consumed_NK, domain_NB, window_NB)

    def _gather(self, block: _Block, rank: int, world_size: int) -> Tokens:
        """Read the rows of `block` that belong to `rank`: (N, B / world_size, S), in the files' own dtype."""
        if self._batch_size % world_size or not 0 <= rank < world_size:
            raise TikmixError(
                f"train.batch_size = {self._batch_size} cannot be dealt to rank {rank} of {world_size}: "
                "it must be a multiple of the number of ranks."
            )
        domain_NB = block.domain_NB[:, rank::world_size]
        window_NB = block.window_NB[:, rank::world_size]
        tokens_NBS = np.empty((*domain_NB.shape, self._context + 1), dtype=self._dtype)
        items_NB = as_items(tokens_NBS)
        for domain in np.flatnonzero(block.counts_NK.any(axis=0)):
            here_NB = domain_NB == domain
            windows = self._orders[domain].windows.gather(window_NB[here_NB])
            items_NB[here_NB] = as_items(windows.astype(self._dtype, copy=False))
        return tokens_NBS


def check_weights(weights: Mapping[str, float], domains: Collection[str]) -> None:
    """Check that `weights` is a mixture of exactly `domains`.

    Raises:
        TikmixError: an unknown or missing domain, a weight that is negative or not finite, or a sum other than 1.
    """
    for name, weight in weights.items():
        if name not in domains:
            raise TikmixError(
                f"The mixture has a weight for {name!r}, which is no domain.{nearest_name(name, domains)}"
            )
        if not (math.isfinite(weight) and weight >= 0):
            raise TikmixError(
                f"The mixture's weight for {name!r} is {weight}. Weights are shares of the tokens: zero or more."
            )
    missing = [name for name in domains if name not in weights]
    if missing:
        raise TikmixError(f"The mixture has no weight for {', '.join(missing)}. Give 0 to leave a domain out.")
    total = sum(weights.values())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise TikmixError(f"The mixture's weights sum to {total:.6g}, not to 1. Divide each by their sum.")


class _WindowOrder:
    """The order in which a domain's windows, or some of them, are read: a new permutation in every epoch."""

    def __init__(self, name: str, windows: Windows, seed: int) -> None:
        self.name = name
        self.windows = windows
        self._chosen: npt.NDArray[np.bool_] | None = None
        self._count = len(windows)
        self._entropy = [seed, crc32(name.encode())]
        self._permutations: dict[int, npt.NDArray[np.unsignedinteger]] = {}

    def __len__(self) -> int:
        """Return how many windows an epoch has."""
        return self._count

    def subsample(self, share: float, consumed: int) -> int:
        """Read a share of the windows from now on; return how many of them are among those consumed so far."""
        if self._chosen is not None:
            raise ValueError(f"{self.name} was subsampled before")
        epoch, position = divmod(consumed, len(self.windows))
        self._count = max(1, round(share * len(self.windows)))
        generator = np.random.default_rng([*self._entropy, _SUBSAMPLED])
        chosen = np.zeros(len(self.windows), dtype=np.bool_)
        chosen[generator.permutation(len(self.windows))[: self._count]] = True
        read = int(chosen[self._permutation(epoch)[:position]].sum())
        self._chosen, self._permutations = chosen, {}
        return epoch * self._count + read

    def indices(self, start: int, count: int) -> npt.NDArray[np.unsignedinteger]:
        """Return the indices of the windows read from the `start`-th on, over as many epochs as it takes."""
        epoch, position = divmod(start, len(self))
        pieces: list[npt.NDArray[np.unsignedinteger]] = []
        while count > 0 or not pieces:
            pieces.append(self._permutation(epoch)[position : position + count])
            count -= len(pieces[-1])
            epoch, position = epoch + 1, 0
        return np.concatenate(pieces)

    def _permutation(self, epoch: int) -> npt.NDArray[np.unsignedinteger]:
        """Return the permutation of `epoch`, keeping the two that were last drawn."""
        if epoch not in self._permutations:
            windows = np.arange(len(self.windows), dtype=np.min_scalar_type(len(self.windows) - 1))
            np.random.default_rng([*self._entropy, epoch]).shuffle(windows)
            windows = windows if self._chosen is None else windows[self._chosen[windows]]
            self._permutations = dict([*self._permutations.items(), (epoch, windows)][-2:])
        return self._permutations[epoch]


def _common_context(domains: Mapping[str, Windows]) -> int:
    if not domains:
        raise TikmixError("The mixture has no domains: corpus.domains must name at least one.")
    contexts = {name: windows.context for name, windows in domains.items()}
    if len(set(contexts.values())) > 1:
        raise TikmixError(f"The domains are cut into windows of unequal context: {contexts}. Cut all of them alike.")
    for name, windows in domains.items():
        if len(windows) == 0:
            raise TikmixError(
                f"Domain {name!r} is shorter than one window of train.context = {windows.context} tokens. "
                "Give it more text, leave it out of corpus.domains, or lower train.context."
            )
    return next(iter(contexts.values()))


def _difference(key: str, saved: Any, mine: Any) -> str:
    if key != "windows" or not isinstance(saved, Mapping):
        return f"its {key} is {saved}, and here it is {mine}"
    unequal = sorted(name for name in {*saved, *mine} if saved.get(name) != mine.get(name))
    pairs = ", ".join(f"{name}: {saved.get(name, 0)} -> {mine.get(name, 0)}" for name in unequal)
    return f"the corpus has other windows than the one it was saved with ({pairs})"
