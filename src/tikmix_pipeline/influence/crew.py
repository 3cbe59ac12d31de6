"""Who measures: here one process, that does it all itself. `ranks.crew.RankCrew` is the same for one of several.

Several processes hold one or more copies of the model, each copy spread over as many of them. The parts of all sets
are dealt to the copies, and the sequences of a part to the processes of its copy. A gradient lies in shards as the
parameters do. The curvature is fitted by all together, on sequences dealt to all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.process_group import ALONE, Exchange
from tikmix_pipeline.lm.cost import plain_gradients


@dataclass(frozen=True)
class Crew:
    """The processes that measure together; each makes the same calls.

    Attributes:
        everyone: all of them.
        copy: those that hold this process's copy of the model.
        number: of this copy.
        copies: how many there are.
    """

    everyone: Exchange = ALONE
    copy: Exchange = ALONE
    number: int = 0
    copies: int = 1

    def gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        """Return the gradients of the sum over the copy's processes of their losses, spread as the parameters are."""
        return plain_gradients(loss, parameters)

    def whole(self, value: Tensor) -> Tensor:
        """Return a plain tensor for one that may be spread over the copy's processes."""
        return value

    def shard(self, value: Tensor) -> tuple[Tensor, int]:
        """Return what this process has of a tensor, as a plain one, and where along axis 0 it begins."""
        return value, 0


MEASURED_ALONE = Crew()


def rows_for(exchange: Exchange, batch: TokenBatch) -> TokenBatch:
    """Return this process's sequences of a batch; where there are fewer than processes, perhaps one without loss.

    All processes run the model as often as each other, since they wait for each other inside it.
    """
    if exchange.count == 1:
        return batch
    start, stop = _bounds(exchange, batch)
    if start == stop:
        return TokenBatch(batch.tokens_BS[:1], np.zeros_like(batch.loss_BS[:1]))
    return TokenBatch(batch.tokens_BS[start:stop], batch.loss_BS[start:stop])


def tokens_for(exchange: Exchange, batch: TokenBatch) -> slice:
    """Return which of a batch's loss-carrying tokens are in `rows_for`, counted through the whole batch."""
    start, stop = _bounds(exchange, batch)
    counts_B = batch.loss_BS.sum(axis=1)
    return slice(int(counts_B[:start].sum()), int(counts_B[:stop].sum()))


def _bounds(exchange: Exchange, batch: TokenBatch) -> tuple[int, int]:
    return len(batch) * exchange.rank // exchange.count, len(batch) * (exchange.rank + 1) // exchange.count
